"""`tunnel server` and `tunnel client`: from a line that could be read to a proxy that runs.

Knows the order of a start, and that whatever fails from here on is said twice: in the log, where an operator looks, and on
standard error, where a script does. Must not know what a proxy does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from tunnel.config import proxy
from tunnel.config.grammar import Arguments, Command
from tunnel.config.model import LogConfig, NoIdentity, ProxyConfig, WorkloadApi
from tunnel.errors import TunnelError
from tunnel.log import Category, Log, escape, one_line
from tunnel.syslog import open_syslog


def run(command: Command, arguments: Arguments, environ: Mapping[str, str]) -> int:
    """Serve until told to stop; the exit code. Raises ConfigError for a line that is wrong on the face of it."""
    log = _open_log(proxy.check_line(arguments))
    try:
        log.write(f"starting tunnel in {command.name} mode")
        config = proxy.build(command, arguments)
        _announce(config, log)
        from tunnel.proxy.process import run_proxy

        return run_proxy(config, log, environ)
    except TunnelError as error:
        log.write(f"error: {error}")
        log.flush()
        sys.stderr.write(one_line(f"error: {error}") + "\n")
        return 1


def _open_log(config: LogConfig) -> Log:
    sink = open_syslog(os.path.basename(sys.argv[0]), os.getpid()) if config.is_syslog else None
    return Log([Category(word) for word in config.quiet if word], sink=sink)


def _announce(config: ProxyConfig, log: Log) -> None:
    for warning in config.warnings:
        log.write(f"warning: {escape(warning)}")
    if isinstance(config.source, NoIdentity):
        log.write("no cert source configured -- running without certificate")
    else:
        where = f": {config.source.endpoint}" if isinstance(config.source, WorkloadApi) else ""
        log.write(f"using {config.source} as certificate source{where}")
