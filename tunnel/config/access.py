"""Access lists as a configuration file has them: entries to rules, and rules to entries.

An entry is `{ allow = X }` or `{ deny = X }`. X is `any`, a SPIFFE ID, a pattern if it has a wildcard, or a table of conditions
that must all match.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence

from tunnel.authz.pattern import parse_pattern
from tunnel.authz.pins import parse_pin
from tunnel.authz.rules import (
    AllRule,
    AnyRule,
    CommonNameRule,
    Condition,
    DenyRule,
    DnsRule,
    Fact,
    IdRule,
    IpRule,
    KeyRule,
    Rule,
    SourceRule,
    TrustDomainRule,
    UnitRule,
    UriRule,
)
from tunnel.config.values import parse_domain, parse_id, parse_ip, parse_name, parse_network
from tunnel.errors import ConfigError, quote
from tunnel.lazy_dataclass import dataclass, field

RulePath = tuple[str | int, ...]  # in the list: index, `allow` or `deny`, condition, index
RuleMistake = tuple[RulePath, str]

ANY = "any"
_ALLOW, _DENY = "allow", "deny"
_SIMILARITY = 0.6  # of a suggestion
_MAX_NAME = 64  # characters of a key that a suggestion is looked for
_ENTRY = "{ allow = ... } or { deny = ... }"
_VALUE = "any, a SPIFFE ID, a pattern, or a table of conditions"


@dataclass(frozen=True, slots=True)
class ConditionKind:
    """One key of a table of conditions; `form` describes its value."""

    form: str
    parse: Callable[[str], Fact]
    needs_spiffe: bool = False  # only SPIFFE verification proves what it matches


CONDITIONS: Mapping[str, ConditionKind] = {
    "id": ConditionKind("a SPIFFE ID", lambda text: IdRule(parse_id(text)), needs_spiffe=True),
    "trust-domain": ConditionKind("a trust domain", lambda text: TrustDomainRule(parse_domain(text)), needs_spiffe=True),
    "uri": ConditionKind("a URI or a pattern", lambda text: UriRule(parse_pattern(text))),
    "cn": ConditionKind("a common name", lambda text: CommonNameRule(parse_name(text))),
    "ou": ConditionKind("an organizational unit", lambda text: UnitRule(parse_name(text))),
    "dns": ConditionKind("a DNS name", lambda text: DnsRule(parse_name(text))),
    "ip": ConditionKind("an IP address", lambda text: IpRule(parse_ip(text))),
    "spki-pin": ConditionKind("ALGORITHM:BASE64", lambda text: KeyRule(parse_pin(text))),
}
SOURCE = "source"  # the only condition that also takes a list
CONDITION_NAMES = (*CONDITIONS, SOURCE)


def parse_rules(value: object, is_server: bool, is_spiffe: bool) -> tuple[tuple[Rule, ...], list[RuleMistake]]:
    """Return the rules of an access list and every mistake in it, with its path in the list; there is no other error."""
    if not isinstance(value, list):
        return (), [((), "invalid type; expected a list of rules")]
    if not value:
        return (), [((), f"no access rule; expected at least one {_ENTRY}")]
    parser = _ListParser(is_server, is_spiffe)
    rules = [parser.parse_entry(entry, (index,)) for index, entry in enumerate(value)]
    return tuple(rule for rule in rules if rule is not None), parser.mistakes


def encode_rules(rules: Iterable[Rule]) -> list[dict[str, object]]:
    """Return the entries of which `parse_rules` makes these rules."""
    return [
        {_DENY: _encode_condition(rule.condition)} if isinstance(rule, DenyRule) else {_ALLOW: _encode_condition(rule)}
        for rule in rules
    ]


@dataclass(slots=True)
class _ListParser:
    """Parses the entries of one list and collects the mistakes."""

    is_server: bool
    is_spiffe: bool
    mistakes: list[RuleMistake] = field(default_factory=list)

    def parse_entry(self, entry: object, path: RulePath) -> Rule | None:
        if not isinstance(entry, dict):
            self._refuse(path, f"invalid type; expected {_ENTRY}")
            return None
        effects = [key for key in entry if key in (_ALLOW, _DENY)]
        unknown = [key for key in entry if key not in effects]
        for key in unknown:
            self._refuse((*path, str(key)), _unknown(str(key), (_ALLOW, _DENY)))
        if len(effects) != 1:
            if effects or not unknown:
                self._refuse(path, f"{'two rules in one entry' if effects else 'no rule'}; expected {_ENTRY}")
            return None
        condition = self._parse_condition(entry[effects[0]], (*path, effects[0]))
        return DenyRule(condition) if condition is not None and effects[0] == _DENY else condition

    def _parse_condition(self, value: object, path: RulePath) -> Condition | None:
        if isinstance(value, str):
            return self._parse_text(value, path)
        if isinstance(value, dict):
            return self._parse_table(value, path)
        self._refuse(path, f"invalid type; expected {_VALUE}")
        return None

    def _parse_text(self, text: str, path: RulePath) -> Condition | None:
        if text != ANY:
            return self._parse_fact("uri" if "*" in text else "id", text, path)
        if not self.is_spiffe and not self.is_server:
            self._refuse(path, f"{ANY} needs the Workload API: without it the server's host name is verified")
            return None
        return AnyRule()

    def _parse_table(self, table: Mapping[object, object], path: RulePath) -> Condition | None:
        if not table:
            self._refuse(path, f"no condition; expected at least one of {', '.join(CONDITION_NAMES)}")
            return None
        parts: list[Fact] = []
        for key, value in table.items():
            part = self._parse_part(str(key), value, (*path, str(key)))
            if part is not None:
                parts.append(part)
        if len(parts) < len(table):
            return None
        return parts[0] if len(parts) == 1 else AllRule(tuple(parts))

    def _parse_part(self, key: str, value: object, path: RulePath) -> Fact | None:
        if key == SOURCE:
            return self._parse_source(value, path)
        if key not in CONDITIONS:
            self._refuse(path, _unknown(key, CONDITION_NAMES))
            return None
        if not isinstance(value, str):
            self._refuse(path, f"invalid type; expected a string: {CONDITIONS[key].form}")
            return None
        return self._parse_fact(key, value, path)

    def _parse_fact(self, key: str, text: str, path: RulePath) -> Fact | None:
        kind = CONDITIONS[key]
        if kind.needs_spiffe and not self.is_spiffe:
            problem = f"{kind.form} needs the Workload API: other certificates prove no SPIFFE ID"
            self._refuse(path, f"{problem}; expected {{ uri = ... }} for the URI in an ordinary certificate")
            return None
        try:
            return kind.parse(text)
        except ConfigError as error:
            self._refuse(path, str(error))
            return None

    def _parse_source(self, value: object, path: RulePath) -> SourceRule | None:
        if not self.is_server:
            self._refuse(path, "for servers only: the rules of a client are about the server")
            return None
        if isinstance(value, str):
            values: list[tuple[object, RulePath]] = [(value, path)]
        else:
            listed = value if isinstance(value, list) else []
            values = [(element, (*path, index)) for index, element in enumerate(listed)]
        if not values:
            self._refuse(path, "no network; expected a network such as 10.0.0.0/8, or a list of them")
            return None
        networks = []
        for text, place in values:
            try:
                if not isinstance(text, str):
                    raise ConfigError("invalid type; expected a network such as 10.0.0.0/8")
                networks.append(parse_network(text))
            except ConfigError as error:
                self._refuse(place, str(error))
        return SourceRule(tuple(networks)) if len(networks) == len(values) else None

    def _refuse(self, path: RulePath, text: str) -> None:
        self.mistakes.append((path, text))


def _unknown(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key[:_MAX_NAME], known, 1, _SIMILARITY)
    return f"unknown key {quote(key[:_MAX_NAME])}; {f'did you mean {close[0]}?' if close else f'expected {_join(known)}'}"


def _join(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _encode_condition(condition: Condition) -> object:
    match condition:
        case AnyRule():
            return ANY
        case IdRule():
            return str(condition.spiffe_id)
        case UriRule() if "*" in condition.pattern.text:
            return condition.pattern.text
        case AllRule():
            return dict(_encode_fact(part) for part in condition.parts)
    return dict([_encode_fact(condition)])


def _encode_fact(fact: Fact) -> tuple[str, object]:
    """Return key and value; both are in the text of a rule."""
    kind, _, text = str(fact).partition(":")
    networks = text.split(",") if isinstance(fact, SourceRule) else []
    return kind, networks if len(networks) > 1 else text
