"""The keys of a listener in a configuration file; a new one is one line here, and its default is that of the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from tunnel.config.file.kinds import (
    close_policy,
    duration,
    integer,
    label,
    listing,
    number,
    optional,
    socket_path,
    switch,
    text,
    words,
)
from tunnel.config.file.schema import Key, Section, mask_credentials
from tunnel.config.model import ListenerConfig, Plaintext, TlsOptions
from tunnel.config.tls_options import SUITES, parse_protocol, parse_suite
from tunnel.config.values import (
    default_of,
    parse_domain,
    parse_limit,
    parse_network,
    parse_positive_duration,
    parse_text,
    parse_web_url,
)
from tunnel.errors import invalid_value
from tunnel.ip_address import parse_ip_address
from tunnel.net.address import (
    ListenAddress,
    TargetAddress,
    TcpAddress,
    UnixAddress,
    is_local,
    parse_listen_address,
    parse_target,
    parse_tcp_address,
)
from tunnel.wire.outbound import OutboundProxy, parse_outbound
from tunnel.wire.proxy_v2 import HeaderMode


def _unix_path(address: ListenAddress | TargetAddress) -> str:
    return address.path if isinstance(address, UnixAddress) else ""


def _parse_dns_server(address: str) -> TcpAddress:
    server = parse_tcp_address(address)
    if parse_ip_address(server.host) is None:
        raise invalid_value("address", address, "host is not an IP address", "IP:PORT, such as 127.0.0.1:53")
    return server


_POSITIVE = duration(parse_positive_duration)
_LIMIT = duration(parse_limit)
_COUNT = integer()
_RATE = number()
_TEXT = optional(text("a string", parse_text))
_URL = optional(text("an http:// or https:// URL", parse_web_url))
_ON = switch()
_OFF = switch(is_inverted=True)
_CLOSE = close_policy()
_LISTEN = socket_path(
    text('an address such as "0.0.0.0:8443", "unix:PATH" or "systemd:NAME"', parse_listen_address), _unix_path
)
_TARGET = socket_path(text('an address such as "localhost:6379", "unix:PATH" or "srv:NAME"', parse_target), _unix_path)
_TARGETS = listing(_TARGET, can_be_empty=False, is_often_one=True)

_SERVER: Final = ("server",)
_CLIENT: Final = ("client",)


def _is_plaintext(listener: ListenerConfig) -> bool:
    return listener.plaintext is not None


def _of_plaintext(name: str) -> Callable[[ListenerConfig], Any]:
    return lambda listener: getattr(listener.plaintext, name) if listener.plaintext is not None else None


def _suites_of(listener: ListenerConfig) -> tuple[str, ...]:
    chosen = listener.tls.ciphers.split(":")
    return tuple(name for name, suites in SUITES.items() if suites in chosen)


def _credentialed_url(proxy: OutboundProxy) -> str:
    if not proxy.has_credentials:
        return str(proxy)
    credentials = quote(proxy.username, safe="")
    if proxy.password:
        credentials += f":{quote(proxy.password, safe='')}"
    return f"{proxy.scheme}://{credentials}@{proxy.address}"


# What every listener has of its own; the other keys can also stand in [defaults].
_OWN_KEYS: Final = (
    Key(
        "name",
        label(),
        "Unique name in logs, metrics and status; default the text of `listen`",
        take=lambda listener: listener.name if ":" not in listener.name else None,
    ),
    Key("listen", _LISTEN, "Address to listen on", "listen", is_required=True),
    Key("target", _TARGETS, "Address to forward to, or several", "targets", is_required=True),
)
ACCESS_KEY: Final = "access"
TUNABLE_KEYS: Final = (
    Key("identity", label(), "Name of the identity; can be left out if there is only one, or for the one named `default`"),
    Key(
        "unsafe-target",
        _ON,
        "Allow a target on another machine: connections to it are not encrypted",
        default=False,
        take=lambda listener: not all(is_local(str(target)) for target in listener.targets),
        modes=_SERVER,
    ),
    Key(
        "unsafe-listen",
        _ON,
        "Accept connections from other machines: they are not encrypted",
        default=False,
        take=lambda listener: listener.listen is not None and not is_local(str(listener.listen)),
        modes=_CLIENT,
    ),
    Key(
        "override-server-name",
        _TEXT,
        "Server name to send (SNI) and to verify; default the host of `target`",
        "server_name",
        modes=_CLIENT,
    ),
    Key(
        "proxy",
        optional(text('a URL such as "http://HOST:PORT" or "socks5://HOST:PORT"', parse_outbound, _credentialed_url)),
        "Connect to the target through this proxy",
        "outbound",
        modes=_CLIENT,
        mask=mask_credentials,
    ),
    Key(
        "disable-authentication",
        _ON,
        "Server: do not request client certificates. Client: present no certificate",
        default=False,
        take=lambda listener: not listener.access.is_mutual,
    ),
    Key(
        "trust-domains",
        optional(listing(text("a trust domain", parse_domain), can_be_empty=False)),
        "Trust domains whose peers are accepted at all, whatever the rules and the trust bundles are; default all",
        take=lambda listener: listener.access.trust_domains,
    ),
    Key(
        "proxy-protocol-mode",
        words({mode.value: mode for mode in HeaderMode}),
        "Send a PROXY protocol v2 header to the target",
        "header_mode",
        modes=_SERVER,
    ),
    Key(
        "target-status",
        _URL,
        "Check the target by a request to this URL",
        "target_status",
        mask=mask_credentials,
        modes=_SERVER,
    ),
    Key("skip-resolve", _OFF, "Do not resolve the target at start", "is_resolved_early"),
    Key(
        "health-interval",
        _LIMIT,
        "Time between the checks of a target, of several; 0 to check failed ones only",
        "health_check.interval",
    ),
    Key("health-timeout", _POSITIVE, "Maximum time for one check", "health_check.timeout"),
    Key("health-rise", integer(lowest=1), "Successes in a row after which a target is healthy again", "health_check.rise"),
    Key("health-fall", integer(lowest=1), "Failures in a row after which a target is unhealthy", "health_check.fall"),
    Key(
        "name-cache-time",
        _LIMIT,
        "Time for which addresses of a name are used; 0 to resolve it each time",
        "resolution.cache_time",
    ),
    Key(
        "dns-server",
        optional(text('an address such as "127.0.0.1:8600"', _parse_dns_server)),
        "Name server for SRV records; default those of /etc/resolv.conf",
        "resolution.dns_server",
    ),
    Key("connect-timeout", _POSITIVE, "Maximum time for handshake and dial", "connect_timeout"),
    Key("close-timeout", _LIMIT, "Maximum idle time after one direction is closed; 0 for immediate close", "close_timeout"),
    Key("max-conn-lifetime", _LIMIT, "Maximum lifetime of a connection; 0 for no limit", "max_conn_lifetime"),
    Key("max-concurrent-conns", _COUNT, "Maximum number of open connections; 0 for no limit", "max_concurrent_conns"),
    Key("max-rate", _RATE, "Maximum number of new connections per second; 0 for no limit", "max_rate"),
    Key(
        "max-conns-per-peer",
        _COUNT,
        "Maximum number of open connections of one peer; 0 for no limit",
        "max_conns_per_peer",
        modes=_SERVER,
    ),
    Key(
        "max-rate-per-peer",
        _RATE,
        "Maximum number of new connections of one peer per second; 0 for no limit",
        "max_rate_per_peer",
        modes=_SERVER,
    ),
    Key("max-handshakes", _COUNT, "Maximum number of TLS handshakes in progress; 0 for no limit", "max_handshakes"),
    Key("on-withdrawal", _CLOSE, "When a connection whose peer would not be admitted now is closed", "on_withdrawal"),
    Key("close-expired", _ON, "Close connections of peers whose certificate has expired", "closes_expired"),
    Key("close-without-identity", _ON, "Close connections when our own identity is withdrawn", "closes_without_identity"),
    Key(
        "plaintext",
        words({"refuse": False, "permit": True}),
        "Whether plain TCP clients are accepted beside TLS clients",
        default=False,
        take=_is_plaintext,
        modes=_SERVER,
    ),
    Key(
        "plaintext-sources",
        optional(listing(text('a network such as "10.0.0.0/8"', parse_network))),
        "With `plaintext`: networks of the permitted plain clients; default all",
        take=_of_plaintext("sources"),
        modes=_SERVER,
    ),
    Key(
        "plaintext-silence",
        optional(_LIMIT),
        "With `plaintext`: a client that sends nothing for so long is a plain one; 0 to wait for its first bytes",
        default=default_of(Plaintext, "silence"),
        take=_of_plaintext("silence"),
        modes=_SERVER,
    ),
    Key(
        "alpn",
        listing(text("a protocol name", parse_protocol)),
        "Application protocols (ALPN), preferred first",
        "tls.protocols",
    ),
    Key(
        "max-tls-version",
        words({"TLS1.2": True, "TLS1.3": False}),
        "Maximum protocol version",
        "tls.is_limited_to_tls12",
    ),
    Key(
        "cipher-suites",
        listing(text(f"one of {', '.join(SUITES)}", parse_suite)),
        "Groups of TLS 1.2 cipher suites",
        default=tuple(name for name, suites in SUITES.items() if suites in default_of(TlsOptions, "ciphers").split(":")),
        take=_suites_of,
    ),
    Key(
        "allow-unsafe-cipher-suites",
        _ON,
        "Allow the group UNSAFE-AZURE",
        default=False,
        take=lambda listener: any(name.startswith("UNSAFE") for name in _suites_of(listener)),
    ),
)


def _listener_section(mode: str, help_text: str) -> Section:
    keys = tuple(key for key in (*_OWN_KEYS, *TUNABLE_KEYS) if mode in key.modes)
    return Section(mode, help_text, ListenerConfig, keys)


SERVER: Final = _listener_section("server", "A listener that accepts mutual TLS and forwards plain TCP")
CLIENT: Final = _listener_section("client", "A listener that accepts plain TCP and forwards mutual TLS")
DEFAULTS: Final = Section("defaults", "Defaults of all listeners", ListenerConfig, TUNABLE_KEYS)
LISTENERS: Final[Mapping[str, Section]] = {"server": SERVER, "client": CLIENT}
