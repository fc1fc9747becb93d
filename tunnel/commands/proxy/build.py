"""The `ProcessConfig` of a line of `tunnel server` or `tunnel client`.

`check_line` reports mistakes that need no log; `build` reports the others as a failed start, in ghostunnel's order.
"""

from __future__ import annotations

from typing import Any

from tunnel.cli.command import Arguments, Command, Flag
from tunnel.commands.proxy import limits, source, status, tls, traces
from tunnel.commands.proxy.access import ALLOW, VERIFY, AccessFlags, access_warnings, build_access
from tunnel.commands.proxy.acme import check_acme
from tunnel.commands.proxy.command import (
    LISTEN,
    PROXY,
    PROXY_MODE,
    PROXY_PROTOCOL,
    SERVER,
    SERVER_NAME,
    SKIP_RESOLVE,
    TARGET,
    UNSAFE_LISTEN,
    UNSAFE_TARGET,
)
from tunnel.config.checks import check_health_ports, check_host_name, check_local, check_outbound
from tunnel.config.model import (
    Access,
    KeyFiles,
    Keystore,
    ListenerConfig,
    LogConfig,
    ProcessConfig,
    Source,
    WorkloadApi,
)
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import replace
from tunnel.net.address import ListenAddress, TargetAddress
from tunnel.wire.outbound import OutboundProxy, parse_outbound
from tunnel.wire.proxy_v2 import HeaderMode


def check_line(arguments: Arguments) -> LogConfig:
    """The log's configuration; raises ConfigError for mistakes that are reported before the log is open."""
    status.check_status(arguments)
    traces.check_traces(arguments)
    return limits.build_log(arguments)


def build(command: Command, arguments: Arguments) -> ProcessConfig:
    """The configuration of a process with one listener; raises ConfigError."""
    if command is SERVER:
        return build_process(arguments, (_complete(_build_server(arguments), arguments),))
    _check_local(arguments, LISTEN, UNSAFE_LISTEN)
    return build_process(arguments, (build_client(arguments, arguments[LISTEN], arguments[TARGET]),))


def build_process(arguments: Arguments, listeners: tuple[ListenerConfig, ...]) -> ProcessConfig:
    """The configuration of the process that runs these listeners; raises ConfigError."""
    config = ProcessConfig(
        listeners,
        status.build_monitors(arguments),
        limits.build_log(arguments),
        traces.build_traces(arguments),
        shutdown_delay=arguments[limits.SHUTDOWN_DELAY],
        shutdown_timeout=arguments[limits.SHUTDOWN_TIMEOUT],
        workers=arguments[limits.WORKERS],
        timed_reload=arguments[source.TIMED_RELOAD],
        is_confined=not arguments[limits.DISABLE_LANDLOCK],
    )
    if problem := next(filter(None, check_health_ports(config)), ""):
        raise ConfigError(f"--{status.HEALTH.name}: {problem}")
    return config


def build_client(
    arguments: Arguments, listen: ListenAddress | None, target: TargetAddress, name: str = "client"
) -> ListenerConfig:
    """A client's configuration with these two addresses; raises ConfigError."""
    return _complete(_build_client(arguments, listen, target, name), arguments)


def _complete(config: ListenerConfig, arguments: Arguments) -> ListenerConfig:
    return replace(
        config,
        tls=tls.build_tls(arguments),
        connect_timeout=arguments[limits.CONNECT_TIMEOUT],
        close_timeout=arguments[limits.CLOSE_TIMEOUT],
        max_conn_lifetime=arguments[limits.MAX_LIFETIME],
        max_concurrent_conns=arguments[limits.MAX_CONNS],
        max_handshakes=arguments[limits.MAX_HANDSHAKES],
        is_resolved_early=not arguments[SKIP_RESOLVE],
    )


def _build_server(arguments: Arguments) -> ListenerConfig:
    is_mutual = not arguments[ALLOW.disable]
    identity = source.build_source(arguments, is_server=True, is_mutual=is_mutual)
    access = build_access(arguments, ALLOW, is_spiffe=isinstance(identity, WorkloadApi))
    _check_local(arguments, TARGET, UNSAFE_TARGET)
    check_acme(arguments)
    if arguments[PROXY_PROTOCOL] and arguments[PROXY_MODE]:
        raise ConfigError("--proxy-protocol and --proxy-protocol-mode are mutually exclusive")
    mode = arguments[PROXY_MODE] or ("conn" if arguments[PROXY_PROTOCOL] else "")
    return ListenerConfig(
        name=SERVER.name,
        is_server=True,
        listen=arguments[LISTEN],
        targets=(arguments[TARGET],),
        identity=source.build_identity(arguments, identity),
        access=access,
        header_mode=HeaderMode(mode) if mode else None,
        target_status=arguments[status.TARGET_STATUS],
        warnings=_warnings(arguments, identity, access, ALLOW),
    )


def _build_client(arguments: Arguments, listen: ListenAddress | None, target: TargetAddress, name: str) -> ListenerConfig:
    is_mutual = not arguments[VERIFY.disable]
    identity = source.build_source(arguments, is_server=False, is_mutual=is_mutual)
    access = build_access(arguments, VERIFY, is_spiffe=isinstance(identity, WorkloadApi))
    config = ListenerConfig(
        name=name,
        is_server=False,
        listen=listen,
        targets=(target,),
        identity=source.build_identity(arguments, identity),
        access=access,
        server_name=arguments[SERVER_NAME],
        outbound=_parse_proxy(arguments[PROXY]) if arguments[PROXY] else None,
        warnings=_warnings(arguments, identity, access, VERIFY),
    )
    problem = check_host_name(config, f"--{SERVER_NAME.name} NAME") or check_outbound(config, f"--{PROXY.name}")
    if problem:
        raise ConfigError(f"--{TARGET.name}: {problem}")
    return config


def _parse_proxy(text: str) -> OutboundProxy:
    """The outbound proxy; it is parsed here and not with the line, because ghostunnel reports it after other mistakes."""
    try:
        return parse_outbound(text)
    except ConfigError as error:
        raise ConfigError(f"--{error}") from error  # it begins with `proxy: `, as ghostunnel's does


def _check_local(arguments: Arguments, flag: Flag[Any], unsafe: Flag[bool]) -> None:
    problem = "" if arguments[unsafe] else check_local(arguments[flag], f"--{unsafe.name}")
    if problem:
        raise ConfigError(f"--{flag.name}: {problem}")


def _warnings(arguments: Arguments, identity: Source, access: Access, flags: AccessFlags) -> tuple[str, ...]:
    no_lists: list[str] = []
    if arguments[source.CRL] and (access.pins or (flags is ALLOW and not access.is_mutual)):
        no_lists = [f"--{source.CRL.name} has no effect: no certificate of a peer is verified against an authority"]
    return (*no_lists, *_source_warnings(arguments, identity, access, flags))


def _source_warnings(arguments: Arguments, identity: Source, access: Access, flags: AccessFlags) -> tuple[str, ...]:
    if isinstance(identity, WorkloadApi):
        unused = ["--cacert is not used for peers: the Workload API provides the bundles"] if arguments[source.CACERT] else []
        return (*access_warnings(access, flags), *unused)
    if isinstance(identity, Keystore | KeyFiles):
        api_flags: tuple[Flag[Any], ...] = (source.SPIFFE_ID, source.SPIFFE_HINT)
        chosen = [flag.name for flag in api_flags if arguments[flag]]
        return tuple(f"--{name} has no effect without the Workload API" for name in chosen)
    return ()
