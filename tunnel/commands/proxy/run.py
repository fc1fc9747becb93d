"""The start of `tunnel server` and `tunnel client`.

A start that fails is reported twice: in the log for operators, and on standard error for scripts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from tunnel.cli.command import Arguments, Command
from tunnel.commands.proxy.build import build, check_line
from tunnel.commands.start import find_port_holders, open_log, prepare
from tunnel.errors import TunnelError
from tunnel.log import STDOUT, one_line
from tunnel.log_capture import LogCapture
from tunnel.net.activation import take_inherited
from tunnel.net.notify import Notifier


def serve(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Serve until a signal or an error; the exit code. Raises ConfigError for a line that `check_line` refuses."""
    inherited = take_inherited(environ, os.getpid())  # before any other process could inherit them
    notifier = Notifier(environ, os.getpid())
    log = open_log(check_line(arguments), STDOUT)
    log_capture = LogCapture()
    log_capture.install()
    try:
        log.info(f"starting tunnel in {command.name} mode")
        config = build(command, arguments)
        from tunnel.proxy.process import run_proxy
        from tunnel.proxy.process_context import ProcessContext

        holders = find_port_holders(config)
        prepare(config, environ, log)
        return run_proxy(config, log, ProcessContext(environ, inherited, notifier, log_capture, holders))
    except TunnelError as error:
        log.write(f"error: {error}")
        log.flush()
        sys.stderr.write(one_line(f"error: {error}") + "\n")
        return 1
