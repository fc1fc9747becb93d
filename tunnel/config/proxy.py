"""The flags of `tunnel server` and `tunnel client`, and the frozen configuration they make.

Knows each flag, its default and which go together; must not know how any of it is carried out. Nothing heavy is imported
here: a wrong line is refused before trio, gRPC or OpenSSL are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunnel.authz.pattern import UriPattern, parse_pattern
from tunnel.authz.rules import AnyRule, IdRule, Rule, TrustDomainRule, UriRule
from tunnel.config.grammar import Arguments, Command, Flag, option, repeated, required, switch
from tunnel.config.scalars import (
    one_of,
    parse_domain,
    parse_duration,
    parse_id,
    parse_limit,
    parse_positive_duration,
    parse_text,
    parse_uint32,
)
from tunnel.errors import ConfigError
from tunnel.net.address import Address, is_local, parse_address
from tunnel.spiffe.endpoint import ENVIRONMENT, Endpoint, parse_endpoint
from tunnel.spiffe.ids import SpiffeId
from tunnel.spiffe.selection import Selection


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Everything one proxy needs to know; durations in seconds."""

    is_server: bool
    listen: Address
    target: Address
    rules: tuple[Rule, ...]
    endpoint: Endpoint
    identity_timeout: float  # 0: wait for ever
    selection: Selection
    connect_timeout: float
    close_timeout: float
    max_conn_lifetime: float
    max_concurrent_conns: int
    shutdown_timeout: float
    quiet: tuple[str, ...]
    warnings: tuple[str, ...]


USE_API = switch("use-workload-api", f"Take the identity from the Workload API at ${ENVIRONMENT}.")
API_ADDRESS = option(
    "use-workload-api-addr",
    "Take the identity from the Workload API at this address: unix:///PATH or tcp://IP:PORT.",
    parse_endpoint,
    None,
    placeholder="ADDR",
    env=ENVIRONMENT,
)
API_TIMEOUT = option(
    "use-workload-api-timeout",
    "How long to wait for the first identity; default 10m, 0 waits for ever.",
    parse_limit,
    600.0,
    placeholder="TIME",
)
SPIFFE_ID = option(
    "spiffe-id", "Of several identities, be this one, and wait until it is offered.", parse_id, None, placeholder="ID"
)
SPIFFE_HINT = option("spiffe-hint", "Of several identities, be the one with this hint.", parse_text, "", placeholder="HINT")
CONNECT_TIMEOUT = option(
    "connect-timeout",
    "Limit for the handshake and for reaching the target together; default 10s.",
    parse_positive_duration,
    10.0,
    placeholder="TIME",
)
CLOSE_TIMEOUT = option(
    "close-timeout",
    "Limit for silence after one direction has ended; default 1m, 0 closes at once.",
    parse_limit,
    60.0,
    placeholder="TIME",
)
MAX_LIFETIME = option(
    "max-conn-lifetime", "Longest life of a connection; default 0, no limit.", parse_limit, 0.0, placeholder="TIME"
)
MAX_CONNS = option(
    "max-concurrent-conns",
    "Most connections at one time, others wait to be accepted; default 0, no limit.",
    parse_uint32,
    0,
    placeholder="N",
)
SHUTDOWN_TIMEOUT = option(
    "shutdown-timeout",
    "How long open connections may go on after SIGTERM or SIGINT; default 5m.",
    parse_duration,
    300.0,
    placeholder="TIME",
)
QUIET = repeated(
    "quiet",
    "Leave lines out of the log: conns, conn-errs, handshake-errs, or all. May be repeated.",
    one_of("", "all", "conns", "conn-errs", "handshake-errs"),
    placeholder="WHAT",
)

# ghostunnel's app-level flags: they may also stand before the command.
COMMON: tuple[Flag[Any], ...] = (
    USE_API,
    API_ADDRESS,
    API_TIMEOUT,
    SPIFFE_ID,
    SPIFFE_HINT,
    CONNECT_TIMEOUT,
    CLOSE_TIMEOUT,
    MAX_LIFETIME,
    MAX_CONNS,
    SHUTDOWN_TIMEOUT,
    QUIET,
)

LISTEN = required(
    "listen",
    "Where to accept: HOST:PORT or unix:PATH. Port 0 takes a free one; several processes may share a port.",
    parse_address,
    placeholder="ADDR",
)
TARGET = required("target", "Where to forward to: HOST:PORT or unix:PATH.", parse_address, placeholder="ADDR")
UNSAFE_TARGET = switch("unsafe-target", "Allow a target that is not on this machine: the bytes to it are in the clear.")
UNSAFE_LISTEN = switch("unsafe-listen", "Accept from other machines: the bytes from them are in the clear.")


@dataclass(frozen=True)
class _RuleFlags:
    """The four flags that say who may pass; a server's and a client's differ in name only."""

    any: Flag[bool]
    ids: Flag[tuple[SpiffeId, ...]]
    domains: Flag[tuple[Any, ...]]
    uris: Flag[tuple[UriPattern, ...]]

    def all(self) -> tuple[Flag[Any], ...]:
        return (self.ids, self.uris, self.domains, self.any)


def _rule_flags(verb: str, who: str, any_name: str) -> _RuleFlags:
    return _RuleFlags(
        switch(
            any_name,
            f"Admit every {who} with a valid SVID, of our own AND OF EVERY FEDERATED trust domain. Excludes the other rules.",
        ),
        repeated(
            f"{verb}-id",
            f"Admit the {who} with this very SPIFFE ID. May be repeated.",
            parse_id,
            placeholder="ID",
        ),
        repeated(
            f"{verb}-trust-domain",
            f"Admit every {who} of this trust domain. May be repeated.",
            parse_domain,
            placeholder="NAME",
        ),
        repeated(
            f"{verb}-uri",
            f"Admit each {who} whose SPIFFE ID matches: * is one segment, ** at the end any number. A wildcard "
            "in the trust domain's place stands for our own. May be repeated.",
            parse_pattern,
            placeholder="PATTERN",
            aliases=(f"{verb}-uri-san",),
        ),
    )


_ALLOW = _rule_flags("allow", "client", "allow-all")
_VERIFY = _rule_flags("verify", "server", "verify-any")

SERVER = Command(
    "server",
    "Accept mutual TLS from clients that may pass, and forward plain bytes to a local target.",
    (LISTEN, TARGET, *_ALLOW.all(), UNSAFE_TARGET, *COMMON),
    """\
Who may pass must be said: at least one of --allow-id, --allow-uri, --allow-trust-domain, --allow-all. Rules are joined by or.

Examples:
  tunnel server --use-workload-api --listen 0.0.0.0:8443 --target localhost:6379 \\
      --allow-id spiffe://example.org/cache-user
  tunnel server --use-workload-api-addr unix:///run/spire/agent.sock --listen :8443 \\
      --target unix:/run/postgresql/.s.PGSQL.5432 --allow-uri 'spiffe://example.org/ns/prod/**'
""",
)
CLIENT = Command(
    "client",
    "Accept plain bytes on this machine, and forward them over mutual TLS to the server that is meant.",
    (LISTEN, TARGET, *_VERIFY.all(), UNSAFE_LISTEN, *COMMON),
    """\
The server must be named: at least one of --verify-id, --verify-uri, --verify-trust-domain, --verify-any.

Example:
  tunnel client --use-workload-api --listen localhost:6379 --target cache.example.org:8443 \\
      --verify-id spiffe://example.org/cache
""",
)


def build(command: Command, arguments: Arguments) -> ProxyConfig:
    """The configuration that a command line means; raises ConfigError."""
    is_server = command is SERVER
    endpoint = _endpoint(arguments)
    flags = _ALLOW if is_server else _VERIFY
    rules = _rules(arguments, flags)
    if is_server:
        _check_local(arguments, TARGET, UNSAFE_TARGET)
    else:
        _check_local(arguments, LISTEN, UNSAFE_LISTEN)
    return ProxyConfig(
        is_server=is_server,
        listen=arguments[LISTEN],
        target=arguments[TARGET],
        rules=rules,
        endpoint=endpoint,
        identity_timeout=arguments[API_TIMEOUT],
        selection=Selection(arguments[SPIFFE_ID], arguments[SPIFFE_HINT]),
        connect_timeout=arguments[CONNECT_TIMEOUT],
        close_timeout=arguments[CLOSE_TIMEOUT],
        max_conn_lifetime=arguments[MAX_LIFETIME],
        max_concurrent_conns=arguments[MAX_CONNS],
        shutdown_timeout=arguments[SHUTDOWN_TIMEOUT],
        quiet=arguments[QUIET],
        warnings=tuple(_warnings(rules, flags)),
    )


def _endpoint(arguments: Arguments) -> Endpoint:
    endpoint = arguments[API_ADDRESS]
    if endpoint is not None:
        return endpoint
    if arguments[USE_API]:
        raise ConfigError(
            f"workload endpoint socket address is not configured: give --use-workload-api-addr or set {ENVIRONMENT}"
        )
    raise ConfigError(
        f"no source of an identity: give --use-workload-api-addr ADDR, or --use-workload-api with {ENVIRONMENT} set"
    )


def _rules(arguments: Arguments, flags: _RuleFlags) -> tuple[Rule, ...]:
    rules: list[Rule] = [IdRule(spiffe_id) for spiffe_id in arguments[flags.ids]]
    rules += [TrustDomainRule(domain) for domain in arguments[flags.domains]]
    rules += [UriRule(pattern) for pattern in arguments[flags.uris]]
    if arguments[flags.any]:
        if rules:
            raise ConfigError(f"--{flags.any.name} admits everyone: it cannot be combined with other rules")
        return (AnyRule(),)
    if not rules:
        names = ", ".join(f"--{flag.name}" for flag in flags.all())
        whom = "clients may pass" if flags is _ALLOW else "server is expected"
        raise ConfigError(f"nothing says which {whom}: give at least one of {names}")
    return tuple(rules)


def _check_local(arguments: Arguments, flag: Flag[Address], unsafe: Flag[bool]) -> None:
    address = arguments[flag]
    if not arguments[unsafe] and not is_local(str(address)):
        raise ConfigError(
            f"--{flag.name} {address} is not local, and what passes there is in the clear: use localhost:PORT, 127.0.0.1:PORT, "
            f"[::1]:PORT or unix:PATH, or say --{unsafe.name}"
        )


def _warnings(rules: tuple[Rule, ...], flags: _RuleFlags) -> list[str]:
    return [text for rule in rules if (text := _warning(rule, flags))]


def _warning(rule: Rule, flags: _RuleFlags) -> str:
    if isinstance(rule, AnyRule):
        return f"--{flags.any.name} admits every valid SVID of our own trust domain and of every federated one"
    if isinstance(rule, UriRule):
        if not rule.pattern.can_match_spiffe_id():
            return f"--{flags.uris.name} {rule.pattern.text} can match no SPIFFE ID"
        if not rule.pattern.names_trust_domain():
            return f"--{flags.uris.name} {rule.pattern.text} names no trust domain: it stands for our own only"
    return ""
