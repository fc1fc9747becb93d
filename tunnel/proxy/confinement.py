"""Restricts the process to the files, ports and URLs that its configuration names.

Call `confine` before any thread exists: a thread that exists already is not restricted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from tunnel.config.acme import complete_acme
from tunnel.config.model import Acme, KeyFiles, Keystore, ListenerConfig, Monitor, ProcessConfig, Traces, WorkloadApi
from tunnel.lazy_dataclass import replace
from tunnel.log import Log
from tunnel.net.address import Address, SrvName, TcpAddress, UnixAddress
from tunnel.sandbox.landlock import apply_landlock
from tunnel.sandbox.rules import SHARED, Needs


def confine(
    config: ProcessConfig,
    environ: Mapping[str, str],
    log: Log,
    *,
    private: tuple[str, ...] = (),
    has_command: bool = False,
    is_reconfigurable: bool = False,
) -> None:
    """Restrict the process to what its configuration needs, as far as the kernel can; raises ConfigError and IdentityError.

    `private` are directories that the process has created; `has_command` is whether it also runs a command,
    `is_reconfigurable` whether a reload may name other files, sockets and ports.
    """
    needs = Needs(private=private, has_command=has_command, is_reconfigurable=is_reconfigurable).union(needs_of(config))
    for source in dict.fromkeys(listener.identity.source for listener in config.listeners):
        if isinstance(source, Acme):
            needs = _with_acme(needs, source, environ)
    apply_landlock(needs, environ, log.info)


def needs_of(config: ProcessConfig) -> Needs:
    """Return the files, ports and URLs that a configuration names."""
    needs = Needs(directories=_log_paths(config))
    for listener in config.listeners:
        needs = needs.union(_needs_of_listener(listener))
    for monitor in config.monitors:
        needs = needs.union(_needs_of_monitor(monitor))
    if config.traces is not None:
        needs = needs.union(_needs_of_traces(config.traces))
    return needs


def _log_paths(config: ProcessConfig) -> tuple[str, ...]:
    """The directory of the access log, in which a log rotation makes a new file; only the file in a shared directory."""
    if not config.log.access.path:
        return ()
    path = os.path.realpath(config.log.access.path)
    directory = os.path.dirname(path)
    return (path if directory in SHARED else directory,)


def _needs_of_listener(config: ListenerConfig) -> Needs:
    return Needs(
        files=tuple(path for path in _files(config) if path),
        listens=(config.listen,) if config.listen is not None else (),
        dials=tuple(_dials(config)),
        has_policy=config.access.policy is not None,
        dials_any_port=config.outbound is None and any(isinstance(target, SrvName) for target in config.targets),
    )


def _files(config: ListenerConfig) -> Iterator[str]:
    source = config.identity.source
    yield config.identity.ca_bundle
    yield from config.identity.revocation.files
    if isinstance(source, KeyFiles):
        yield from (source.cert, source.key)
    if isinstance(source, Keystore):
        yield from (source.path, source.password_file)
    if config.access.policy is not None:
        yield config.access.policy.path


def _needs_of_monitor(monitor: Monitor) -> Needs:
    metrics = monitor.metrics
    return Needs(
        files=(metrics.ca_bundle,) if metrics.ca_bundle else (),
        listens=monitor.addresses,
        dials=(metrics.graphite,) if metrics.graphite is not None else (),
        urls=(metrics.url,) if metrics.url else (),
    )


def _needs_of_traces(traces: Traces) -> Needs:
    return Needs(files=(traces.ca_bundle,) if traces.ca_bundle else (), urls=(traces.url,))


def _dials(config: ListenerConfig) -> Iterator[Address]:
    source = config.identity.source
    for target in config.targets:
        if not isinstance(target, SrvName):
            yield target
    if config.resolution.dns_server is not None:
        yield config.resolution.dns_server
    if config.outbound is not None:
        yield config.outbound.address
    if isinstance(source, WorkloadApi) and source.endpoint.path:
        yield UnixAddress(source.endpoint.path)
    elif isinstance(source, WorkloadApi):
        yield TcpAddress(source.endpoint.host, str(source.endpoint.port))


def _with_acme(needs: Needs, source: Acme, environ: Mapping[str, str]) -> Needs:
    """Add what an ACME source needs, and create its storage directory."""
    from tunnel.acme.storage import Storage  # loads cryptography

    acme = complete_acme(source, environ)
    return replace(
        needs,
        directories=(*needs.directories, str(Storage(acme).make_folder())),
        listens=(*needs.listens, TcpAddress("", str(acme.challenge_port))),
        urls=(*needs.urls, acme.directory_url),
    )
