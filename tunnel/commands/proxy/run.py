"""The start of `tunnel server`, `tunnel client` and `tunnel serve`.

A start that fails is reported twice: in the log for operators, and on standard error for scripts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING

from tunnel.cli.command import Arguments, Command
from tunnel.commands.logs import open_access_log, open_log
from tunnel.commands.proxy.build import build, check_line
from tunnel.commands.start import find_port_holders, prepare
from tunnel.config.model import LogConfig, ProcessConfig
from tunnel.errors import TunnelError
from tunnel.log import STDOUT, one_line
from tunnel.log_capture import LogCapture
from tunnel.net.activation import take_inherited
from tunnel.net.notify import Notifier

if TYPE_CHECKING:  # loaded for configuration files only
    from tunnel.proxy.reloader import ReloadSource


def serve(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Serve until a signal or an error; the exit code. Raises ConfigError for a line that `check_line` refuses."""
    return run_service(command.name, check_line(arguments), partial(build, command, arguments), environ)


def run_service(
    mode: str,
    log_config: LogConfig,
    build_config: Callable[[], ProcessConfig],
    environ: MutableMapping[str, str],
    *,
    reload_source: ReloadSource | None = None,
) -> int:
    """Serve until a signal or an error; the exit code.

    `reload_source` is where a reload reads the configuration, None for a command line.
    """
    inherited = take_inherited(environ, os.getpid())  # before any other process could inherit them
    notifier = Notifier(environ, os.getpid())
    log = open_log(log_config, STDOUT)
    log_capture = LogCapture()
    log_capture.install()
    try:
        log.info(f"starting tunnel in {mode} mode")
        access_log = open_access_log(log_config, log, STDOUT)
        config = build_config()
        from tunnel.proxy.process import run_proxy
        from tunnel.proxy.process_context import ProcessContext

        holders = find_port_holders(config)
        prepare(config, environ, log, is_reconfigurable=reload_source is not None)
        process_context = ProcessContext(environ, inherited, notifier, log_capture, holders, access_log)
        return run_proxy(config, log, process_context, reload_source)
    except TunnelError as error:
        log.write(f"error: {error}")
        log.flush()
        sys.stderr.write(one_line(f"error: {error}") + "\n")
        return 1
