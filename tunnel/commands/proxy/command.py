"""The flags of `tunnel server` and `tunnel client`, and the frozen configuration they make.

Knows each flag, its default and which go together; must not know how any of it is carried out. Nothing heavy is imported
here: a wrong line is refused before trio, gRPC or OpenSSL are loaded. What can be said of the line alone is said by
`check_line`; what takes it for a start that failed, in the order of ghostunnel's own checks, by `build`.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

from tunnel.cli.parser import Arguments, Command, Flag, Group, option, repeated, required, switch
from tunnel.commands.proxy import source as sources
from tunnel.commands.proxy import status, tls
from tunnel.commands.proxy.access import ALLOW, VERIFY, AccessFlags, access_warnings, build_access
from tunnel.commands.proxy.source import build_source, check_acme
from tunnel.config.model import Access, KeyFiles, Keystore, LogConfig, ProxyConfig, Source, WorkloadApi
from tunnel.config.values import one_of, parse_duration, parse_limit, parse_positive_duration, parse_text, parse_uint32
from tunnel.errors import ConfigError
from tunnel.net.address import Address, ListenAddress, TcpAddress, is_local, parse_address, parse_listen_address
from tunnel.wire.outbound import parse_outbound
from tunnel.wire.proxy_v2 import HeaderMode

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
MAX_HANDSHAKES = option(
    "max-handshakes",
    "Maximum number of TLS handshakes in progress (default 512, 0 for no limit).",
    parse_uint32,
    512,
    placeholder="N",
)
SHUTDOWN_TIMEOUT = option(
    "shutdown-timeout",
    "How long open connections may go on after SIGTERM or SIGINT; default 5m.",
    parse_duration,
    300.0,
    placeholder="TIME",
)
SHUTDOWN_DELAY = option(
    "shutdown-delay",
    "How long to report not ready and still accept connections after SIGTERM or SIGINT, before the drain; default 0.",
    parse_limit,
    0.0,
    placeholder="TIME",
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

LISTEN = required(
    "listen",
    "Where to accept: HOST:PORT, unix:PATH or systemd:NAME. Port 0 takes a free one; several processes may share a port, which "
    "the log reports.",
    parse_listen_address,
    placeholder="ADDR",
)
TARGET = required("target", "Where to forward to: HOST:PORT or unix:PATH.", parse_address, placeholder="ADDR")
UNSAFE_TARGET = switch("unsafe-target", "Allow a target that is not on this machine: the bytes to it are in the clear.")
UNSAFE_LISTEN = switch("unsafe-listen", "Accept from other machines: the bytes from them are in the clear.")
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

_LIMITS = Group(
    "Limits",
    (CONNECT_TIMEOUT, CLOSE_TIMEOUT, MAX_LIFETIME, MAX_CONNS, MAX_HANDSHAKES, SHUTDOWN_DELAY, SHUTDOWN_TIMEOUT, *tls.FLAGS),
)
_PROCESS = Group("The process", (QUIET, SYSLOG, DISABLE_LANDLOCK, USE_LANDLOCK))

SERVER = Command(
    "server",
    "Accept mutual TLS from clients that may pass, and forward plain bytes to a local target.",
    (
        Group("From where to where", (LISTEN, TARGET, UNSAFE_TARGET, SKIP_RESOLVE)),
        Group("Who may pass: at least one of these, joined by or", (*ALLOW.admitting(), ALLOW.disable)),
        Group("Identity and trust: one source", (*sources.FLAGS, *sources.ACME)),
        Group("What the target is told of its callers", (PROXY_PROTOCOL, PROXY_MODE)),
        _LIMITS,
        Group("Status and metrics", (*status.FLAGS, status.TARGET_STATUS)),
        _PROCESS,
    ),
    """\
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
    (
        Group("From where to where", (LISTEN, TARGET, UNSAFE_LISTEN, SERVER_NAME, PROXY, SKIP_RESOLVE)),
        Group("Which server is meant: with the Workload API at least one of these, joined by or", VERIFY.admitting()),
        Group("Identity and trust: one source", (*sources.FLAGS, VERIFY.disable)),
        _LIMITS,
        Group("Status and metrics", status.FLAGS),
        _PROCESS,
    ),
    """\
With certificates on disk the server must have the target's host name, whatever else is asked of it.

Examples:
  tunnel client --use-workload-api --listen localhost:6379 --target cache.example.org:8443 \\
      --verify-id spiffe://example.org/cache
  tunnel client --keystore client.p12 --cacert ca.pem --listen localhost:8080 \\
      --target web.example.org:8443
""",
)
COMMANDS = (SERVER, CLIENT)
# ghostunnel's app-level flags: they may also stand before the command.
COMMON = (*sources.FLAGS, *_LIMITS.flags, *status.FLAGS, SKIP_RESOLVE, *_PROCESS.flags)


def check_line(arguments: Arguments) -> LogConfig:
    """What is wrong with the line on the face of it, before anything is logged; raises ConfigError."""
    status.check_served(arguments)
    return LogConfig(arguments[QUIET], arguments[SYSLOG])


def build(command: Command, arguments: Arguments) -> ProxyConfig:
    """The configuration that a command line means; raises ConfigError."""
    if command is SERVER:
        return _complete(_build_server(arguments), arguments)
    _check_local(arguments, LISTEN, UNSAFE_LISTEN)
    return build_client(arguments, arguments[LISTEN], arguments[TARGET])


def build_client(arguments: Arguments, listen: ListenAddress | None, target: Address) -> ProxyConfig:
    """A client's configuration, from wherever its two ends have come; raises ConfigError."""
    return _complete(_build_client(arguments, listen, target), arguments)


def _complete(config: ProxyConfig, arguments: Arguments) -> ProxyConfig:
    return replace(
        config,
        ca_bundle=arguments[sources.CACERT],
        tls=tls.build_tls(arguments),
        connect_timeout=arguments[CONNECT_TIMEOUT],
        close_timeout=arguments[CLOSE_TIMEOUT],
        max_conn_lifetime=arguments[MAX_LIFETIME],
        max_concurrent_conns=arguments[MAX_CONNS],
        max_handshakes=arguments[MAX_HANDSHAKES],
        shutdown_delay=arguments[SHUTDOWN_DELAY],
        shutdown_timeout=arguments[SHUTDOWN_TIMEOUT],
        timed_reload=arguments[sources.TIMED_RELOAD],
        is_resolved_early=not arguments[SKIP_RESOLVE],
        status=status.build_status(arguments),
        metrics=status.build_metrics(arguments),
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
        target_status=arguments[status.TARGET_STATUS],
        warnings=_warnings(arguments, source, granted, ALLOW),
    )


def _build_client(arguments: Arguments, listen: ListenAddress | None, target: Address) -> ProxyConfig:
    is_mutual = not arguments[VERIFY.disable]
    source = build_source(arguments, is_server=False, is_mutual=is_mutual)
    granted = build_access(arguments, VERIFY, is_spiffe=isinstance(source, WorkloadApi))
    config = ProxyConfig(
        is_server=False,
        listen=listen,
        target=target,
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


def _warnings(arguments: Arguments, source: Source, granted: Access, flags: AccessFlags) -> tuple[str, ...]:
    if isinstance(source, WorkloadApi):
        unused = ["--cacert is not used for peers: the Workload API brings the bundles"] if arguments[sources.CACERT] else []
        return (*access_warnings(granted, flags), *unused)
    if isinstance(source, Keystore | KeyFiles):
        flags_of_api: tuple[Flag[Any], ...] = (sources.SPIFFE_ID, sources.SPIFFE_HINT)
        chosen = [flag.name for flag in flags_of_api if arguments[flag]]
        return tuple(f"--{name} has no effect without the Workload API" for name in chosen)
    return ()


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Carry out one line; the exit code. Raises ConfigError for a wrong line."""
    from tunnel.commands.proxy.run import run

    return run(command, arguments, environ)
