"""`tunnel server` and `tunnel client`: from a line that could be read to a proxy that runs.

Knows the order of a start, and that whatever fails from here on is said twice: in the log, where an operator looks, and on
standard error, where a script does. Must not know what a proxy does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from tunnel.config import proxy
from tunnel.config.grammar import Arguments, Command
from tunnel.config.model import LogConfig, NoIdentity, ProxyConfig, WorkloadApi
from tunnel.errors import TunnelError
from tunnel.log import STDOUT, Category, DescriptorSink, Log, Sink, escape, one_line
from tunnel.net.activation import take_inherited
from tunnel.net.notify import Notifier
from tunnel.strays import Strays
from tunnel.syslog import open_syslog


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Serve until told to stop; the exit code. Raises ConfigError for a line that is wrong on the face of it."""
    inherited = take_inherited(environ, os.getpid())  # before anything is started that they do not concern
    notifier = Notifier(environ, os.getpid())
    log = open_log(proxy.check_line(arguments), STDOUT)
    strays = Strays()
    strays.install()
    try:
        log.tell(f"starting tunnel in {command.name} mode")
        config = proxy.build(command, arguments)
        # Loaded before it is confined: trio looks for a library by running programs, and tries more of them where it may not.
        from tunnel.proxy.process import run_proxy
        from tunnel.proxy.surroundings import Surroundings

        if config.is_confined:
            from tunnel.proxy.confinement import confine

            confine([config], environ, log)
        announce(config, log)
        return run_proxy(config, log, Surroundings(environ, inherited, notifier, strays))
    except TunnelError as error:
        log.write(f"error: {error}")
        log.flush()
        sys.stderr.write(one_line(f"error: {error}") + "\n")
        return 1


def open_log(config: LogConfig, descriptor: int) -> Log:
    """The log of this process: the system's, or this descriptor."""
    sink: Sink = DescriptorSink(descriptor)
    if config.is_syslog:
        name = os.path.basename(sys.argv[0])
        sink = open_syslog("tunnel" if name == "__main__.py" else name, os.getpid())
    return Log([Category(word) for word in config.quiet if word], sink=sink)


def announce(config: ProxyConfig, log: Log) -> None:
    """Say what is about to be done, and what may surprise."""
    for warning in config.warnings:
        log.write(f"warning: {escape(warning)}")
    if config.outbound is not None:
        log.tell(f"using proxy {config.outbound}")
    if isinstance(config.source, NoIdentity):
        log.tell("no cert source configured -- running without certificate")
    else:
        where = f": {config.source.endpoint}" if isinstance(config.source, WorkloadApi) else ""
        log.tell(f"using {config.source} as certificate source{where}")
