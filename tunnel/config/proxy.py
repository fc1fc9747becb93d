"""The flags of `tunnel server` and `tunnel client`, and the frozen configuration they make.

Knows each flag, its default and which go together; must not know how any of it is carried out. Nothing heavy is imported
here: a wrong line is refused before trio, gRPC or OpenSSL are loaded. What can be said of the line alone is said by
`check_line`; what takes it for a start that failed, in the order of ghostunnel's own checks, by `build`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunnel.config import sources
from tunnel.config.access import ALLOW, VERIFY, AccessFlags, access_warnings, build_access
from tunnel.config.grammar import Arguments, Command, Flag, option, repeated, required, switch
from tunnel.config.model import (
    Access,
    KeyFiles,
    Keystore,
    LogConfig,
    Metrics,
    ProxyConfig,
    Source,
    Status,
    TlsOptions,
    WorkloadApi,
)
from tunnel.config.scalars import (
    one_of,
    parse_duration,
    parse_limit,
    parse_positive_duration,
    parse_text,
    parse_uint32,
    parse_web_url,
)
from tunnel.config.sources import build_source, check_acme
from tunnel.errors import ConfigError
from tunnel.net.address import (
    StatusAddress,
    TcpAddress,
    is_local,
    parse_address,
    parse_listen_address,
    parse_status_address,
)
from tunnel.wire.outbound import parse_outbound
from tunnel.wire.proxy_v2 import HeaderMode

_SUITES = {  # ghostunnel's groups in OpenSSL's notation
    "AES": "ECDHE+AESGCM",
    "CHACHA": "ECDHE+CHACHA20",
    "UNSAFE-AZURE": "ECDHE-RSA-AES128-SHA256",
}


def _parse_status_or_none(text: str) -> StatusAddress | None:
    return parse_status_address(text) if text else None


def _parse_graphite(text: str) -> TcpAddress:
    try:
        address = parse_address(text)
    except ConfigError as error:
        raise ConfigError(f"'{text}' is not a valid TCP address: {error}") from error
    if not isinstance(address, TcpAddress):
        raise ConfigError(f"'{text}' is not a valid TCP address: HOST:PORT is wanted")
    return address


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
STATUS = option(
    "status",
    "Serve status and metrics here: [http://|https://]HOST:PORT, unix:PATH or systemd:NAME. HOST:PORT speaks HTTPS with our "
    "own certificate unless it says http://; anyone who reaches it may ask.",
    _parse_status_or_none,
    None,
    placeholder="ADDR",
)
PPROF = switch("enable-pprof", "Serve task lists and profiles at /debug/pprof/ of the status port.")
SHUTDOWN = switch("enable-shutdown", "Let a POST to /_shutdown of the status port end the process.")
GRAPHITE = option("metrics-graphite", "Send metrics to this Graphite server.", _parse_graphite, None, placeholder="HOST:PORT")
METRICS_URL = option("metrics-url", "POST metrics as JSON to this URL.", parse_web_url, "", placeholder="URL")
METRICS_PREFIX = option(
    "metrics-prefix", "What the names of metrics begin with; default ghostunnel.", parse_text, "ghostunnel", placeholder="NAME"
)
METRICS_INTERVAL = option(
    "metrics-interval", "How often metrics are sent; default 30s.", parse_positive_duration, 30.0, placeholder="TIME"
)
SKIP_RESOLVE = switch("skip-resolve", "Do not look up --target at start: its name may come to exist later.")
QUIET = repeated(
    "quiet",
    "Leave lines out of the log: conns, conn-errs, handshake-errs, or all. May be repeated.",
    one_of("", "all", "conns", "handshake-errs", "conn-errs"),
    placeholder="WHAT",
)
SYSLOG = switch("syslog", "Log to the local syslog, in the place of standard output.")
DISABLE_LANDLOCK = switch("disable-landlock", "Do not confine the process to the files and ports that the flags name.")
USE_LANDLOCK = switch("use-landlock", "Accepted and ignored: confinement is the default.", hidden=True)
CIPHER_SUITES = option(
    "cipher-suites",
    "Groups of TLS 1.2 cipher suites: AES, CHACHA.",
    parse_text,
    "AES,CHACHA",
    placeholder="LIST",
    hidden=True,
)
UNSAFE_SUITES = switch("allow-unsafe-cipher-suites", "Allow the group UNSAFE-AZURE.", hidden=True)


def _parse_tls_version(text: str) -> str:
    if text and text.upper() not in ("TLS1.2", "TLS1.3"):
        raise ConfigError(f"invalid max TLS version: {text!a}, TLS1.2 or TLS1.3 is wanted")
    return text.upper()


MAX_TLS_VERSION = option(
    "max-tls-version",
    "The newest protocol to speak, TLS1.2 or TLS1.3.",
    _parse_tls_version,
    "",
    placeholder="VERSION",
    hidden=True,
)

# ghostunnel's app-level flags: they may also stand before the command.
COMMON: tuple[Flag[Any], ...] = (
    *sources.COMMON,
    CONNECT_TIMEOUT,
    CLOSE_TIMEOUT,
    MAX_LIFETIME,
    MAX_CONNS,
    SHUTDOWN_TIMEOUT,
    STATUS,
    PPROF,
    SHUTDOWN,
    GRAPHITE,
    METRICS_URL,
    METRICS_PREFIX,
    METRICS_INTERVAL,
    SKIP_RESOLVE,
    QUIET,
    SYSLOG,
    DISABLE_LANDLOCK,
    USE_LANDLOCK,
    CIPHER_SUITES,
    UNSAFE_SUITES,
    MAX_TLS_VERSION,
)

LISTEN = required(
    "listen",
    "Where to accept: HOST:PORT, unix:PATH or systemd:NAME. Port 0 takes a free one; several processes may share a port.",
    parse_listen_address,
    placeholder="ADDR",
)
TARGET = required("target", "Where to forward to: HOST:PORT or unix:PATH.", parse_address, placeholder="ADDR")
UNSAFE_TARGET = switch("unsafe-target", "Allow a target that is not on this machine: the bytes to it are in the clear.")
UNSAFE_LISTEN = switch("unsafe-listen", "Accept from other machines: the bytes from them are in the clear.")
TARGET_STATUS = option(
    "target-status",
    "Ask the target for this URL, and expect 200, when the status is asked for; default, whether it accepts connections.",
    parse_web_url,
    "",
    placeholder="URL",
)
PROXY_PROTOCOL = switch("proxy-protocol", "Send a PROXY protocol v2 header to the target: --proxy-protocol-mode=conn.")
PROXY_MODE = option(
    "proxy-protocol-mode",
    "Tell the target by a PROXY protocol v2 header: conn, the addresses; tls, also SNI and TLS version; tls-full, also the "
    "client's certificate; spiffe, as tls with the client's SPIFFE ID.",
    one_of(*(mode.value for mode in HeaderMode)),
    "",
    placeholder="MODE",
)
SERVER_NAME = option(
    "override-server-name",
    "The server's name, to ask for and to verify, where it is not the host of --target.",
    parse_text,
    "",
    placeholder="NAME",
)
PROXY = option(
    "proxy",
    "Reach the target through this proxy: http://HOST:PORT (CONNECT), socks5://HOST:PORT.",
    parse_text,
    "",
    placeholder="URL",
    aliases=("connect-proxy",),
)

SERVER = Command(
    "server",
    "Accept mutual TLS from clients that may pass, and forward plain bytes to a local target.",
    (
        LISTEN,
        TARGET,
        *ALLOW.all(),
        UNSAFE_TARGET,
        TARGET_STATUS,
        PROXY_PROTOCOL,
        PROXY_MODE,
        *sources.SERVER_ONLY,
        *COMMON,
    ),
    """\
Who may pass must be said: at least one of --allow-id, --allow-uri, --allow-trust-domain, --allow-cn, --allow-ou,
--allow-dns, --allow-policy, --allow-spki-pin, --allow-all, --disable-authentication. Rules are joined by or.

Examples:
  tunnel server --use-workload-api --listen 0.0.0.0:8443 --target localhost:6379 \\
      --allow-id spiffe://example.org/cache-user
  tunnel server --use-workload-api-addr unix:///run/spire/agent.sock --listen :8443 \\
      --target unix:/run/postgresql/.s.PGSQL.5432 --allow-uri 'spiffe://example.org/ns/prod/**'
  tunnel server --cert server.pem --key server-key.pem --cacert ca.pem --listen :8443 \\
      --target localhost:8080 --allow-cn client
""",
)
CLIENT = Command(
    "client",
    "Accept plain bytes on this machine, and forward them over mutual TLS to the server that is meant.",
    (LISTEN, TARGET, *VERIFY.all(), UNSAFE_LISTEN, SERVER_NAME, PROXY, *COMMON),
    """\
With the Workload API the server must be named: at least one of --verify-id, --verify-uri, --verify-trust-domain,
--verify-any, or another --verify flag. With certificates on disk it must have the target's host name.

Examples:
  tunnel client --use-workload-api --listen localhost:6379 --target cache.example.org:8443 \\
      --verify-id spiffe://example.org/cache
  tunnel client --keystore client.p12 --cacert ca.pem --listen localhost:8080 --target web.example.org:8443
""",
)


def check_line(arguments: Arguments) -> LogConfig:
    """What is wrong with the line on the face of it, before anything is logged; raises ConfigError."""
    for flag in (PPROF, SHUTDOWN):
        if arguments[flag] and arguments[STATUS] is None:
            raise ConfigError(f"--{flag.name} needs --status: it is served there")
    return LogConfig(arguments[QUIET], arguments[SYSLOG])


def build(command: Command, arguments: Arguments) -> ProxyConfig:
    """The configuration that a command line means; raises ConfigError."""
    config = _build_server(arguments) if command is SERVER else _build_client(arguments)
    tls = _tls_options(arguments)
    status = arguments[STATUS]
    return replace(
        config,
        ca_bundle=arguments[sources.CACERT],
        tls=tls,
        connect_timeout=arguments[CONNECT_TIMEOUT],
        close_timeout=arguments[CLOSE_TIMEOUT],
        max_conn_lifetime=arguments[MAX_LIFETIME],
        max_concurrent_conns=arguments[MAX_CONNS],
        shutdown_timeout=arguments[SHUTDOWN_TIMEOUT],
        timed_reload=arguments[sources.TIMED_RELOAD],
        is_resolved_early=not arguments[SKIP_RESOLVE],
        status=Status(status, arguments[PPROF], arguments[SHUTDOWN]) if status is not None else None,
        metrics=_metrics(arguments),
        is_confined=not arguments[DISABLE_LANDLOCK],
    )


def _build_server(arguments: Arguments) -> ProxyConfig:
    is_mutual = not arguments[ALLOW.disable]
    source = build_source(arguments, is_server=True, is_mutual=is_mutual)
    granted = build_access(arguments, ALLOW, is_spiffe=isinstance(source, WorkloadApi))
    _check_local(arguments, TARGET, UNSAFE_TARGET)
    check_acme(arguments)
    if arguments[PROXY_PROTOCOL] and arguments[PROXY_MODE]:
        raise ConfigError("--proxy-protocol and --proxy-protocol-mode are mutually exclusive")
    mode = arguments[PROXY_MODE] or ("conn" if arguments[PROXY_PROTOCOL] else "")
    return ProxyConfig(
        is_server=True,
        listen=arguments[LISTEN],
        target=arguments[TARGET],
        source=source,
        access=granted,
        header_mode=HeaderMode(mode) if mode else None,
        target_status=arguments[TARGET_STATUS],
        warnings=_warnings(arguments, source, granted, ALLOW),
    )


def _build_client(arguments: Arguments) -> ProxyConfig:
    is_mutual = not arguments[VERIFY.disable]
    source = build_source(arguments, is_server=False, is_mutual=is_mutual)
    _check_local(arguments, LISTEN, UNSAFE_LISTEN)
    granted = build_access(arguments, VERIFY, is_spiffe=isinstance(source, WorkloadApi))
    config = ProxyConfig(
        is_server=False,
        listen=arguments[LISTEN],
        target=arguments[TARGET],
        source=source,
        access=granted,
        server_name=arguments[SERVER_NAME],
        outbound=parse_outbound(arguments[PROXY]) if arguments[PROXY] else None,
        warnings=_warnings(arguments, source, granted, VERIFY),
    )
    if not (config.host or isinstance(source, WorkloadApi) or granted.pins):
        raise ConfigError(f"--target {config.target} names no host to verify: say --override-server-name NAME")
    if config.outbound is not None and not isinstance(config.target, TcpAddress):
        raise ConfigError(f"--target {config.target} cannot be reached through --proxy: HOST:PORT is wanted")
    return config


def _check_local(arguments: Arguments, flag: Flag[Any], unsafe: Flag[bool]) -> None:
    address = arguments[flag]
    if not arguments[unsafe] and not is_local(str(address)):
        raise ConfigError(
            f"--{flag.name} {address} is not local, and what passes there is in the clear: use localhost:PORT, 127.0.0.1:PORT, "
            f"[::1]:PORT or unix:PATH, or say --{unsafe.name}"
        )


def _tls_options(arguments: Arguments) -> TlsOptions:
    names = [name.strip() for name in arguments[CIPHER_SUITES].split(",")]
    for name in names:
        if name not in _SUITES:
            raise ConfigError(f"invalid cipher suite option: {name!a}, of {', '.join(_SUITES)} is wanted")
        if name.startswith("UNSAFE") and not arguments[UNSAFE_SUITES]:
            raise ConfigError(f"cipher suite option {name} is unsafe: it needs --allow-unsafe-cipher-suites")
    ciphers = ":".join(suites for name, suites in _SUITES.items() if name in names)  # their order in the flag has no effect
    return TlsOptions(ciphers, arguments[MAX_TLS_VERSION] == "TLS1.2")


def _metrics(arguments: Arguments) -> Metrics:
    return Metrics(arguments[GRAPHITE], arguments[METRICS_URL], arguments[METRICS_PREFIX], arguments[METRICS_INTERVAL])


def _warnings(arguments: Arguments, source: Source, granted: Access, flags: AccessFlags) -> tuple[str, ...]:
    if isinstance(source, WorkloadApi):
        unused = ["--cacert is not used for peers: the Workload API brings the bundles"] if arguments[sources.CACERT] else []
        return (*access_warnings(granted, flags), *unused)
    if isinstance(source, Keystore | KeyFiles):
        flags_of_api: tuple[Flag[Any], ...] = (sources.SPIFFE_ID, sources.SPIFFE_HINT)
        chosen = [flag.name for flag in flags_of_api if arguments[flag]]
        return tuple(f"--{name} has no effect without the Workload API" for name in chosen)
    return ()
