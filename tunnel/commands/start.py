"""What every command with proxies does before they begin.

Knows the log, the confinement and what an operator is told; must not know what a proxy does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from tunnel.config.model import LogConfig, NoIdentity, ProxyConfig, WorkloadApi
from tunnel.errors import TargetError
from tunnel.log import Category, DescriptorSink, Log, Sink, escape
from tunnel.log_capture import LogCapture
from tunnel.net.activation import ActivationSockets
from tunnel.net.address import TcpAddress
from tunnel.net.holders import Holders, find_holders_of_ports
from tunnel.net.notify import Notifier
from tunnel.net.sockets import port_number
from tunnel.syslog import open_syslog

if TYPE_CHECKING:  # loaded when the line is known to be a good one
    from tunnel.proxy.process_context import ProcessContext


def open_log(config: LogConfig, descriptor: int) -> Log:
    """The log of this process: the system's, or this descriptor."""
    sink: Sink = DescriptorSink(descriptor)
    if config.is_syslog:
        name = os.path.basename(sys.argv[0])
        sink = open_syslog("tunnel" if name == "__main__.py" else name, os.getpid())
    return Log([Category(word) for word in config.quiet if word], sink=sink)


def open_private_context(environ: Mapping[str, str]) -> ProcessContext:
    """Those of a tool: what a service manager has given is somebody else's. Collects strays from now on."""
    log_capture = LogCapture()
    log_capture.install()
    from tunnel.proxy.process_context import ProcessContext

    return ProcessContext(environ, ActivationSockets(), Notifier({}, os.getpid()), log_capture)


def see_holders(configs: Sequence[ProxyConfig]) -> Holders:
    """Who listens now where these proxies will; to be called before `begin`, which hides other processes from us."""
    addresses = [config.listen for config in configs] + [config.status.address.address for config in configs if config.status]
    ports: set[int] = set()
    for address in addresses:
        with suppress(TargetError):  # a name that means nothing is refused when it is opened
            if isinstance(address, TcpAddress) and address.port != "0":
                ports.add(port_number(address.port))
    return find_holders_of_ports(ports)


def begin(
    configs: Sequence[ProxyConfig],
    environ: Mapping[str, str],
    log: Log,
    *,
    private: tuple[str, ...] = (),
    has_command: bool = False,
) -> None:
    """Confine the process to what its proxies need and to its `private` directories, and announce the proxies.

    To be called when the modules are loaded: trio looks for a library by running programs, and tries more of them where it may
    not.
    """
    if all(config.is_confined for config in configs):  # the rules of the process are the rules of each
        from tunnel.proxy.confinement import confine

        confine(configs, environ, log, private=private, has_command=has_command)
    for config in configs:
        _announce(config, log)


def _announce(config: ProxyConfig, log: Log) -> None:
    """Say what is about to be done, and what may surprise."""
    for warning in config.warnings:
        log.write(f"warning: {escape(warning)}")
    if config.outbound is not None:
        log.info(f"using proxy {config.outbound}")
    if isinstance(config.source, NoIdentity):
        log.info("no cert source configured -- running without certificate")
    else:
        where = f": {config.source.endpoint}" if isinstance(config.source, WorkloadApi) else ""
        log.info(f"using {config.source} as certificate source{where}")
