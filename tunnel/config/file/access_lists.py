"""The access of a listener: named lists and inline ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tunnel.authz.pins import parse_pin
from tunnel.authz.rules import AnyRule, Rule
from tunnel.config.access import CONDITION_NAMES, SOURCE, RulePath, parse_rules
from tunnel.config.access_warnings import list_warnings
from tunnel.config.file.kinds import file_name, invalid_type, listing, text
from tunnel.config.file.problem import Place
from tunnel.config.file.schema import Key, Section
from tunnel.config.file.tables import RawTable, read_table
from tunnel.config.model import Access, PolicyFiles
from tunnel.config.values import parse_name
from tunnel.lazy_dataclass import dataclass

_RULES = "rules"
_TEXT_OR_LIST = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_CONDITIONS = {
    "type": "object",
    "properties": {**{name: {"type": "string"} for name in CONDITION_NAMES}, SOURCE: _TEXT_OR_LIST},
    "additionalProperties": False,
    "minProperties": 1,
}
_CONDITION = {
    "description": "`any`, a SPIFFE ID, a pattern, or conditions that must all match",
    "anyOf": [{"type": "string"}, _CONDITIONS],
}
_ENTRY = {
    "type": "object",
    "properties": {"allow": _CONDITION, "deny": _CONDITION},
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
RULES_SCHEMA: Final = {
    "description": "Ordered rules: the first that matches decides",
    "type": "array",
    "items": _ENTRY,
    "minItems": 1,
}
ACCESS = Section(
    "access.NAME",
    "A named access list",
    Access,
    (
        Key("policy", file_name(), "Rego policy that admits peers, evaluated after the rules: a .rego file or an OPA bundle"),
        Key("query", text("a query", parse_name), "Query to evaluate in the policy, such as data.policy.allow"),
        Key(
            "spki-pins",
            listing(text("a pin such as sha256:BASE64", parse_pin)),
            "Admit peers with these public keys, whatever CA signed the certificate; not with rules or the Workload API",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class AccessTable:
    """An access list as it stands in a file: its rules, if any, and its other keys."""

    rules: object  # None for none
    rules_place: Place
    others: RawTable


def named_table(table: RawTable) -> AccessTable:
    """The access list in a table."""
    others = {name: value for name, value in table.values.items() if name != _RULES}
    return AccessTable(table.values.get(_RULES), table.place / _RULES, RawTable(others, table.place))


def inline_table(value: object, place: Place) -> AccessTable | None:
    """The access list that stands in a listener: rules, or a table."""
    if isinstance(value, list):
        return AccessTable(value, place, RawTable({}, place))
    if isinstance(value, dict):
        return named_table(RawTable(value, place))
    place.refuse(invalid_type(value, "the name of an access list, or a list of rules"))
    return None


def build_access(table: AccessTable, *, is_server: bool, is_spiffe: bool, is_mutual: bool = True) -> Access | None:
    """The access; None after mistakes, which are reported."""
    found = table.rules_place.found
    before = len(found.errors)
    rules = _read_rules(table, is_server=is_server, is_spiffe=is_spiffe)
    values = read_table(table.others, ACCESS.keys, known=(_RULES,))
    _check_combination(table, is_spiffe=is_spiffe)
    if len(found.errors) > before:
        return None
    if "spki-pins" in values:
        return Access((AnyRule("spki-pin"),), values["spki-pins"], None, is_mutual)
    policy = PolicyFiles(values["policy"], values["query"]) if "policy" in values else None
    return Access(rules, (), policy, is_mutual)


def list_problems(table: AccessTable, access: Access, *, is_spiffe: bool) -> Iterator[tuple[Place, str]]:
    """Warnings about an access list, with their places."""
    rules = access.rules if table.rules is not None else ()
    if rules:
        has_policy = access.policy is not None
        for path, problem in list_warnings(
            rules, has_policy=has_policy, is_spiffe=is_spiffe, trust_domains=access.trust_domains
        ):
            yield _inside(table.rules_place, path), problem
    if access.policy is not None and is_spiffe:
        yield table.others.place / "policy", "names no trust domain: it is evaluated for peers of our own trust domain only"


def _inside(place: Place, path: RulePath) -> Place:
    return Place(place.file, (*place.path, *path), place.found)


def _read_rules(table: AccessTable, *, is_server: bool, is_spiffe: bool) -> tuple[Rule, ...]:
    value, place = table.rules, table.rules_place
    if value is None:
        return ()
    rules, mistakes = parse_rules(value, is_server, is_spiffe)
    for path, problem in mistakes:
        _inside(place, path).refuse(problem)
    return rules


def _check_combination(table: AccessTable, *, is_spiffe: bool) -> None:
    given, place = table.others.values, table.others.place
    for one, other in (("policy", "query"), ("query", "policy")):
        if one in given and not table.others.has(other):
            (place / one).refuse(f"needs {other}")
    if "spki-pins" in given:
        _check_pins(place / "spki-pins", has_rules=table.rules is not None, has_policy="policy" in given, is_spiffe=is_spiffe)
    if table.rules is None and not given and not table.others.meant:
        place.refuse("empty: no peer would be admitted; expected rules, policy with query, or spki-pins")


def _check_pins(place: Place, *, has_rules: bool, has_policy: bool, is_spiffe: bool) -> None:
    if has_rules or has_policy:
        other = "rules" if has_rules else "policy"
        place.refuse(f"spki-pins and {other} are mutually exclusive: a pinned key is the only check")
    if is_spiffe:
        place.refuse("spki-pins and the Workload API are mutually exclusive: the key of an SVID changes at every rotation")
