"""The flags with access rules, and the `Access` that they build; a new kind of rule is one `RuleFlag`.

A server without rules is refused. With the Workload API a client must name the server that it expects; with certificates on
disk the host name is verified.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunnel.authz.pattern import parse_pattern
from tunnel.authz.pins import SpkiPin, parse_pin
from tunnel.authz.rules import (
    AnyRule,
    CommonNameRule,
    DnsRule,
    IdRule,
    IpRule,
    Rule,
    TrustDomainRule,
    UnitRule,
    UriRule,
)
from tunnel.cli.command import Arguments, Flag, option, repeated, switch
from tunnel.cli.parser import parse_value
from tunnel.config.access_warnings import rule_warning
from tunnel.config.model import Access, PolicyFiles
from tunnel.config.values import parse_domain, parse_id, parse_ip, parse_name, parse_text
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import dataclass


@dataclass(frozen=True)
class RuleFlag:
    """The flag of one kind of access rule; `make` builds the rule from one value."""

    flag: Flag[tuple[Any, ...]]
    make: Callable[[Any], Rule]
    needs_spiffe: bool = False  # only SPIFFE verification proves what the rule matches


@dataclass(frozen=True)
class AccessFlags:
    """The flags of one mode; those of a server (`--allow-*`) and of a client (`--verify-*`) differ in name only."""

    verb: str
    rules: tuple[RuleFlag, ...]  # in the order of evaluation, which is ghostunnel's
    policy: Flag[str]
    query: Flag[str]
    pins: Flag[tuple[str, ...]]
    any: Flag[bool]
    disable: Flag[bool]

    def named(self) -> tuple[Flag[Any], ...]:
        """The flags that match fields of the peer's certificate."""
        return tuple(rule.flag for rule in self.rules)

    def admitting(self) -> tuple[Flag[Any], ...]:
        """All flags that admit peers, in the order of the help."""
        return (*self.named(), self.policy, self.query, self.pins, self.any)


def _build_flags(verb: str, peer: str, any_flag: Flag[bool], disable: str) -> AccessFlags:
    def flag(kind: str, text: str, parse: Callable[[str], Any], placeholder: str = "NAME", **options: Any) -> Flag[Any]:
        return repeated(f"{verb}-{kind}", f"{text}; repeatable", parse, placeholder=placeholder, **options)

    def san(kind: str) -> tuple[str]:
        return (f"{verb}-{kind}-san",)  # ghostunnel's second name of the flag

    field = f"Admit {peer}s whose certificate has this"
    uri = (
        f"Admit {peer}s with a matching SPIFFE ID or other URI: * matches one segment, ** at the end any number. With the "
        "Workload API a wildcard in place of the trust domain matches our own trust domain only"
    )
    pin = (
        f"Admit {peer}s with this public key, whatever CA signed the certificate: sha256:BASE64, sha384: or sha512:. Not "
        "together with other rules or the Workload API"
    )
    policy = f"Admit {peer}s that this Rego policy allows: a .rego file or an OPA bundle"
    query = "Query to evaluate in the policy, such as data.policy.allow"
    one_id = flag("id", f"Admit the {peer} with this exact SPIFFE ID", parse_id, "ID")
    domain = flag("trust-domain", f"Admit all {peer}s of this trust domain", parse_domain)
    return AccessFlags(
        verb,
        (
            RuleFlag(one_id, IdRule, needs_spiffe=True),
            RuleFlag(domain, TrustDomainRule, needs_spiffe=True),
            RuleFlag(flag("cn", f"{field} common name", parse_name), CommonNameRule),
            RuleFlag(flag("ou", f"{field} organizational unit", parse_name), UnitRule),
            RuleFlag(flag("dns", f"{field} DNS name", parse_name, aliases=san("dns")), DnsRule),
            RuleFlag(flag("ip", f"{field} IP address", parse_ip, "IP", aliases=san("ip"), hidden=True), IpRule),
            RuleFlag(flag("uri", uri, parse_pattern, "PATTERN", aliases=san("uri")), UriRule),
        ),
        policy=option(f"{verb}-policy", policy, parse_text, "", placeholder="FILE"),
        query=option(f"{verb}-query", query, parse_text, "", placeholder="QUERY"),
        pins=flag("spki-pin", pin, parse_text, "PIN"),
        any=any_flag,
        disable=switch("disable-authentication", disable),
    )


ALLOW = _build_flags(
    "allow",
    "client",
    switch(
        "allow-all",
        "Admit all clients with a valid certificate; with the Workload API those of our own AND OF EVERY FEDERATED trust "
        "domain. Not together with other rules",
    ),
    "Do not request client certificates: every client is admitted. Not together with other rules",
)
VERIFY = _build_flags(
    "verify",
    "server",
    switch(
        "verify-any",
        "With the Workload API, admit all servers with a valid SVID of our own AND OF EVERY FEDERATED trust domain. Not "
        "together with other rules",
    ),
    "Present no certificate; the server is still verified",
)


def build_access(arguments: Arguments, flags: AccessFlags, *, is_spiffe: bool) -> Access:
    """The access rules of a line; raises ConfigError for flags that exclude each other."""
    is_server = flags is ALLOW
    _check_combination(arguments, flags, is_spiffe=is_spiffe, is_server=is_server)
    pins = tuple(_parse_pin(text, flags) for text in arguments[flags.pins])
    rules = _rules(arguments, flags)
    policy = _policy(arguments, flags)
    is_mutual = not arguments[flags.disable]
    if pins:
        rules = (AnyRule("spki-pin"),)
    elif not rules and policy is None and not is_server:
        rules = (AnyRule("host-name"),)
    return Access(rules, pins, policy, is_mutual)


def access_warnings(access: Access, flags: AccessFlags) -> list[str]:
    """Warnings about rules whose effect under SPIFFE may be unintended."""
    warnings = [text for rule in access.rules if (text := _warning(rule, flags))]
    if access.policy is not None:
        warnings.append(f"--{flags.policy.name} names no trust domain: it is evaluated for peers of our own trust domain only")
    return warnings


def _check_combination(arguments: Arguments, flags: AccessFlags, *, is_spiffe: bool, is_server: bool) -> None:
    named = [flag for flag in flags.named() if arguments[flag]]
    policy = [flag for flag in (flags.policy, flags.query) if arguments[flag]]
    pins = [flags.pins] if arguments[flags.pins] else []
    if is_server and not (named or policy or pins or arguments[flags.any] or arguments[flags.disable]):
        enough = (*flags.named(), flags.policy, flags.pins, flags.any, flags.disable)
        raise ConfigError(f"no access rule for clients; expected at least one of {_list(enough)}")
    if arguments[flags.any]:
        disable = [flags.disable] if is_server and arguments[flags.disable] else []
        _exclude(flags.any, [*named, *policy, *pins, *disable], "it admits all peers")
    if is_server and arguments[flags.disable]:
        _exclude(flags.disable, [*named, *policy, *pins], "no certificate is requested")
    if bool(arguments[flags.policy]) != bool(arguments[flags.query]):
        present, absent = (flags.policy, flags.query) if arguments[flags.policy] else (flags.query, flags.policy)
        raise ConfigError(f"--{present.name} needs --{absent.name}")
    if pins:
        _exclude(flags.pins, [*named, *policy], "a pinned key is the only check")
        if is_spiffe:
            raise ConfigError(
                f"--{flags.pins.name} and the Workload API are mutually exclusive: the key of an SVID changes at every rotation"
            )
    if not is_spiffe:
        _check_without_spiffe(arguments, flags, is_server=is_server)
    elif not is_server and not (named or policy or arguments[flags.any]):
        enough = (*flags.named(), flags.policy, flags.any)
        raise ConfigError(f"no access rule for the server; expected at least one of {_list(enough)}")


def _check_without_spiffe(arguments: Arguments, flags: AccessFlags, *, is_server: bool) -> None:
    for rule in flags.rules:
        if rule.needs_spiffe and arguments[rule.flag]:
            raise ConfigError(
                f"--{rule.flag.name} needs the Workload API: other certificates prove no SPIFFE ID; use --{flags.verb}-uri "
                "for the URI in an ordinary certificate"
            )
    if not is_server and arguments[flags.any]:
        raise ConfigError(f"--{flags.any.name} needs the Workload API: without it the server's host name is verified")


def _exclude(flag: Flag[Any], others: list[Flag[Any]], reason: str) -> None:
    if others:
        raise ConfigError(f"--{flag.name} and --{others[0].name} are mutually exclusive: {reason}")


def _parse_pin(text: str, flags: AccessFlags) -> SpkiPin:
    """The pin; it is parsed here and not with the line, because ghostunnel reports it after other mistakes."""
    return parse_value(parse_pin, text, f"--{flags.pins.name}")


def _rules(arguments: Arguments, flags: AccessFlags) -> tuple[Rule, ...]:
    if arguments[flags.any]:
        return (AnyRule(),)
    return tuple(rule.make(value) for rule in flags.rules for value in arguments[rule.flag])


def _policy(arguments: Arguments, flags: AccessFlags) -> PolicyFiles | None:
    return PolicyFiles(arguments[flags.policy], arguments[flags.query]) if arguments[flags.policy] else None


def _list(flags: tuple[Flag[Any], ...]) -> str:
    return ", ".join(f"--{flag.name}" for flag in flags if not flag.is_hidden)


def _warning(rule: Rule, flags: AccessFlags) -> str:
    warning = rule_warning(rule, is_spiffe=True)
    kind, _, value = str(rule).partition(":")
    flag = flags.any.name if isinstance(rule, AnyRule) else f"{flags.verb}-{kind} {value}"
    return f"--{flag} {warning}" if warning else ""
