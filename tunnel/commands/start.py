"""What all commands with proxies do before the proxies start."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from tunnel.config.model import ListenerConfig, NoIdentity, ProcessConfig, WorkloadApi
from tunnel.errors import TargetError
from tunnel.log import Log, escape
from tunnel.log_capture import LogCapture
from tunnel.net.activation import ActivationSockets
from tunnel.net.address import TcpAddress
from tunnel.net.holders import Holders, find_holders_of_ports
from tunnel.net.notify import Notifier
from tunnel.net.sockets import port_number

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.proxy.process_context import ProcessContext
    from tunnel.proxy.reloader import ReloadSource


def open_process_context(environ: Mapping[str, str]) -> ProcessContext:
    """The context of a command that is no service: without sockets and notifications of a service manager.

    Starts to capture what libraries write to standard error.
    """
    log_capture = LogCapture()
    log_capture.install()
    from tunnel.proxy.process_context import ProcessContext

    return ProcessContext(environ, ActivationSockets(), Notifier({}, os.getpid()), log_capture)


def open_reload_source(files: Sequence[str], *, is_watching: bool) -> ReloadSource:
    """Configuration files, as the start and each reload read them; create it before they are read for the first time."""
    from tunnel.config.file.loader import load_config
    from tunnel.proxy.file_watcher import sign_files
    from tunnel.proxy.reloader import ReloadSource

    return ReloadSource(partial(load_config, files), sign_files(files) if is_watching else {})


def find_port_holders(config: ProcessConfig) -> Holders:
    """The processes that listen now on the ports of this one; call it before `prepare`, which hides other processes."""
    addresses = [listener.listen for listener in config.listeners]
    addresses += [address for monitor in config.monitors for address in monitor.addresses]
    ports: set[int] = set()
    for address in addresses:
        with suppress(TargetError):  # an unknown port name is refused when the listener opens
            if isinstance(address, TcpAddress) and address.port != "0":
                ports.add(port_number(address.port))
    return find_holders_of_ports(ports)


def prepare(
    config: ProcessConfig,
    environ: Mapping[str, str],
    log: Log,
    *,
    private: tuple[str, ...] = (),
    has_command: bool = False,
    is_reconfigurable: bool = False,
) -> None:
    """Confine the process to what its configuration needs and to its `private` directories, and log the configuration.

    Call it after all modules are loaded: trio looks for a library by running programs, and runs more if that is denied.
    """
    if config.traces is not None:
        from tunnel.tracing.trace_export import load_exporter

        load_exporter()
    if config.is_confined:
        from tunnel.proxy.confinement import confine

        confine(config, environ, log, private=private, has_command=has_command, is_reconfigurable=is_reconfigurable)
    for warning in (*config.warnings, *(escape(text) for one in config.listeners for text in one.warnings)):
        log.write(f"warning: {warning}")
    for line in dict.fromkeys(line for listener in config.listeners for line in _describe_sources(listener)):
        log.info(line)


def _describe_sources(config: ListenerConfig) -> Iterator[str]:
    """The log lines that many listeners have in common."""
    if config.outbound is not None:
        yield f"using proxy {config.outbound}"
    if isinstance(config.identity.source, NoIdentity):
        yield "no cert source configured -- running without certificate"
    else:
        where = f": {config.identity.source.endpoint}" if isinstance(config.identity.source, WorkloadApi) else ""
        yield f"using {config.identity.source} as certificate source{where}"
