"""The access rules of a file: parsing and writing of `{ allow = ... }` entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunnel.authz.pattern import parse_pattern
from tunnel.authz.rules import AnyRule, CommonNameRule, DnsRule, IdRule, IpRule, Rule, TrustDomainRule, UnitRule, UriRule
from tunnel.config.file.positions import TomlPath
from tunnel.config.file.problem import suggest
from tunnel.config.file.writer import TomlValue
from tunnel.config.values import parse_domain, parse_id, parse_ip, parse_name
from tunnel.errors import ConfigError

RuleMistake = tuple[TomlPath, str]

_KINDS: Mapping[str, Callable[[str], Rule]] = {
    "id": lambda text: IdRule(parse_id(text)),
    "trust-domain": lambda text: TrustDomainRule(parse_domain(text)),
    "uri": lambda text: UriRule(parse_pattern(text)),
    "cn": lambda text: CommonNameRule(parse_name(text)),
    "ou": lambda text: UnitRule(parse_name(text)),
    "dns": lambda text: DnsRule(parse_name(text)),
    "ip": lambda text: IpRule(parse_ip(text)),
}

CONDITION_NAMES = tuple(_KINDS)
SOURCE = ""


def parse_rules(value: object, is_server: bool, is_spiffe: bool) -> tuple[tuple[Rule, ...], list[RuleMistake]]:
    """The rules, and the mistakes with their paths in the list."""
    mistakes: list[RuleMistake] = []
    if not isinstance(value, list):
        return (), [((), "invalid type; expected a list of rules")]
    if not value:
        return (), [((), "no access rule; expected at least one { allow = ... }")]
    rules = []
    for index, entry in enumerate(value):
        try:
            rules.append(_parse_entry(entry))
        except ConfigError as error:
            mistakes.append(((index,), str(error)))
    return tuple(rules), mistakes


def _parse_entry(entry: object) -> Rule:
    if not isinstance(entry, dict) or len(entry) != 1 or "allow" not in entry:
        text = ""
        if isinstance(entry, dict):
            text = next((text for name in entry if (text := suggest(name, ("allow",))[0])), "")
        raise ConfigError(f"invalid rule{text or '; expected { allow = ... }'}")
    allowed = entry["allow"]
    if isinstance(allowed, str):
        if allowed == "any":
            return AnyRule()
        return UriRule(parse_pattern(allowed)) if "*" in allowed else IdRule(parse_id(allowed))
    if not isinstance(allowed, dict) or len(allowed) != 1:
        raise ConfigError("invalid rule; expected one kind")
    [(kind, text)] = allowed.items()
    if kind not in _KINDS or not isinstance(text, str):
        raise ConfigError(f"unknown kind of rule{suggest(kind, _KINDS)[0]}")
    return _KINDS[kind](text)


def encode_rules(rules: Sequence[Rule]) -> list[TomlValue]:
    """The rules as a file has them."""
    return [{"allow": _encode_rule(rule)} for rule in rules]


def _encode_rule(rule: Any) -> TomlValue:
    kind, _, text = str(rule).partition(":")
    if isinstance(rule, AnyRule):
        return kind
    return text if kind == "id" or (kind == "uri" and "*" in text) else {kind: text}
