"""The flags that say who may pass, and the access that they mean.

Knows which of them go together, in both modes; must not know how a peer is looked at. A server admits nobody unless told
to; a client under SPIFFE names the server that it expects, and with certificates on disk the host name says it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tunnel.authz.pattern import UriPattern, parse_pattern
from tunnel.authz.pins import parse_pin
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
from tunnel.cli.parser import Arguments, Flag, option, repeated, switch
from tunnel.config.model import Access, PolicyFiles
from tunnel.config.values import parse_domain, parse_id, parse_ip, parse_name, parse_text
from tunnel.errors import ConfigError
from tunnel.ip_address import IpAddress
from tunnel.spiffe.ids import SpiffeId

T = TypeVar("T")


@dataclass(frozen=True)
class AccessFlags:
    """The flags of one mode; a server's and a client's differ in name only."""

    any: Flag[bool]
    ids: Flag[tuple[SpiffeId, ...]]
    domains: Flag[tuple[Any, ...]]
    common_names: Flag[tuple[str, ...]]
    units: Flag[tuple[str, ...]]
    dns_names: Flag[tuple[str, ...]]
    ips: Flag[tuple[IpAddress, ...]]
    uris: Flag[tuple[UriPattern, ...]]
    pins: Flag[tuple[str, ...]]
    policy: Flag[str]
    query: Flag[str]
    disable: Flag[bool]

    def named(self) -> tuple[Flag[Any], ...]:
        """Those that name peers by what their certificates say."""
        return (self.ids, self.uris, self.domains, self.common_names, self.units, self.dns_names, self.ips)

    def admitting(self) -> tuple[Flag[Any], ...]:
        """Those that say who may pass, as the help shows them."""
        return (*self.named(), self.policy, self.query, self.pins, self.any)


def _flags(verb: str, who: str, any_flag: Flag[bool], disable: str) -> AccessFlags:
    def rule(
        kind: str,
        text: str,
        parse: Callable[[str], T],
        placeholder: str = "NAME",
        *,
        is_san: bool = False,  # then ghostunnel has a second name for it
        hidden: bool = False,
    ) -> Flag[tuple[T, ...]]:
        aliases = (f"{verb}-{kind}-san",) if is_san else ()
        more = f"{text} May be repeated."
        return repeated(f"{verb}-{kind}", more, parse, placeholder=placeholder, aliases=aliases, hidden=hidden)

    has = f"Admit each {who} whose certificate has this"
    uri = (
        f"Admit each {who} whose SPIFFE ID or other URI matches: * is one segment, ** at the end any number. Under SPIFFE a "
        "wildcard in the trust domain's place stands for our own."
    )
    pin = (
        f"Admit the {who} with this public key, whoever signed its certificate: sha256:BASE64, also sha384 and sha512. "
        "Excludes the other rules and the Workload API."
    )
    policy = f"Admit each {who} whom this Rego policy admits: a .rego file or an OPA bundle."
    query = "The query that asks the policy, data.policy.allow for instance."
    return AccessFlags(
        any=any_flag,
        ids=rule("id", f"Admit the {who} with this very SPIFFE ID.", parse_id, "ID"),
        domains=rule("trust-domain", f"Admit every {who} of this trust domain.", parse_domain),
        common_names=rule("cn", f"{has} common name.", parse_name),
        units=rule("ou", f"{has} organizational unit.", parse_name),
        dns_names=rule("dns", f"{has} DNS name.", parse_name, is_san=True),
        ips=rule("ip", f"{has} IP address.", parse_ip, "IP", is_san=True, hidden=True),
        uris=rule("uri", uri, parse_pattern, "PATTERN", is_san=True),
        pins=rule("spki-pin", pin, parse_text, "PIN"),
        policy=option(f"{verb}-policy", policy, parse_text, "", placeholder="FILE"),
        query=option(f"{verb}-query", query, parse_text, "", placeholder="QUERY"),
        disable=switch("disable-authentication", disable),
    )


ALLOW = _flags(
    "allow",
    "client",
    switch(
        "allow-all",
        "Admit every client whose certificate verifies; under SPIFFE of our own AND OF EVERY FEDERATED trust domain. "
        "Excludes the other rules.",
    ),
    "Ask clients for no certificate: everyone may pass. Excludes the other rules.",
)
VERIFY = _flags(
    "verify",
    "server",
    switch(
        "verify-any",
        "Under SPIFFE, admit every server with a valid SVID, of our own AND OF EVERY FEDERATED trust domain. Excludes the "
        "other rules.",
    ),
    "Show no certificate; the server is verified all the same.",
)


def build_access(arguments: Arguments, flags: AccessFlags, *, is_spiffe: bool) -> Access:
    """The access that a line's flags mean; raises ConfigError for what does not go together."""
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
    """What may surprise about rules under SPIFFE."""
    warnings = [text for rule in access.rules if (text := _warning(rule, flags))]
    if access.policy is not None:
        warnings.append(f"--{flags.policy.name} names no trust domain: it is asked about peers of our own only")
    return warnings


def _check_combination(arguments: Arguments, flags: AccessFlags, *, is_spiffe: bool, is_server: bool) -> None:
    named = [flag for flag in flags.named() if arguments[flag]]
    asked = [flag for flag in (flags.policy, flags.query) if arguments[flag]]
    pins = [flags.pins] if arguments[flags.pins] else []
    if is_server and not (named or asked or pins or arguments[flags.any] or arguments[flags.disable]):
        enough = (*flags.named(), flags.policy, flags.pins, flags.any, flags.disable)
        raise ConfigError(f"nothing says which clients may pass: give at least one of {_list(enough)}")
    if arguments[flags.any]:
        disable = [flags.disable] if is_server and arguments[flags.disable] else []
        _exclude(flags.any, "admits everyone: it", [*named, *asked, *pins, *disable])
    if is_server and arguments[flags.disable]:
        _exclude(flags.disable, "asks for no certificate: it", [*named, *asked, *pins])
    if bool(arguments[flags.policy]) != bool(arguments[flags.query]):
        raise ConfigError(f"--{flags.policy.name} and --{flags.query.name} go together: one is missing")
    if pins:
        _exclude(flags.pins, "is the whole authentication: it", [*named, *asked])
        if is_spiffe:
            raise ConfigError(
                f"--{flags.pins.name} and the Workload API are mutually exclusive: an SVID's key changes all the time"
            )
    if not is_spiffe:
        _check_without_spiffe(arguments, flags, is_server=is_server)
    elif not is_server and not (named or asked or arguments[flags.any]):
        enough = (*flags.named(), flags.policy, flags.any)
        raise ConfigError(f"nothing says which server is expected: give at least one of {_list(enough)}")


def _check_without_spiffe(arguments: Arguments, flags: AccessFlags, *, is_server: bool) -> None:
    for flag in (flags.ids, flags.domains):
        if arguments[flag]:
            raise ConfigError(
                f"--{flag.name} needs the Workload API: without it certificates prove no SPIFFE ID; use --{flags.uris.name} "
                "for the URI in an ordinary certificate"
            )
    if not is_server and arguments[flags.any]:
        raise ConfigError(f"--{flags.any.name} needs the Workload API: without it, the server's host name is what is verified")


def _exclude(flag: Flag[Any], why: str, others: list[Flag[Any]]) -> None:
    if others:
        raise ConfigError(f"--{flag.name} {why} and --{others[0].name} are mutually exclusive")


def _parse_pin(text: str, flags: AccessFlags) -> Any:
    try:
        return parse_pin(text)
    except ConfigError as error:
        raise ConfigError(f"--{flags.pins.name}: {error}") from error


def _rules(arguments: Arguments, flags: AccessFlags) -> tuple[Rule, ...]:
    if arguments[flags.any]:
        return (AnyRule(),)
    rules: list[Rule] = [IdRule(spiffe_id) for spiffe_id in arguments[flags.ids]]
    rules += [TrustDomainRule(domain) for domain in arguments[flags.domains]]
    rules += [CommonNameRule(name) for name in arguments[flags.common_names]]
    rules += [UnitRule(unit) for unit in arguments[flags.units]]
    rules += [DnsRule(name) for name in arguments[flags.dns_names]]
    rules += [IpRule(address) for address in arguments[flags.ips]]
    rules += [UriRule(pattern) for pattern in arguments[flags.uris]]
    return tuple(rules)


def _policy(arguments: Arguments, flags: AccessFlags) -> PolicyFiles | None:
    return PolicyFiles(arguments[flags.policy], arguments[flags.query]) if arguments[flags.policy] else None


def _list(flags: tuple[Flag[Any], ...]) -> str:
    return ", ".join(f"--{flag.name}" for flag in flags if not flag.is_hidden)


def _warning(rule: Rule, flags: AccessFlags) -> str:
    if isinstance(rule, AnyRule):
        return f"--{flags.any.name} admits every valid SVID of our own trust domain and of every federated one"
    if isinstance(rule, UriRule) and not rule.pattern.can_match_spiffe_id():
        return f"--{flags.uris.name} {rule.pattern.text} can match no SPIFFE ID"
    if not rule.names_trust_domain():
        kind, _, value = str(rule).partition(":")
        return f"--{flags.uris.name.partition('-')[0]}-{kind} {value} names no trust domain: it stands for our own only"
    return ""
