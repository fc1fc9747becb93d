"""`tunnel server` and `tunnel client`: from a line that could be read to a proxy that runs.

Knows the order of a start, and that whatever fails from here on is said twice: in the log, where an operator looks, and on
standard error, where a script does. Must not know what a proxy does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from tunnel.cli.parser import Arguments, Command
from tunnel.commands.proxy import command as proxy
from tunnel.commands.start import begin, open_log, see_holders
from tunnel.errors import TunnelError
from tunnel.log import STDOUT, one_line
from tunnel.log_capture import LogCapture
from tunnel.net.activation import take_inherited
from tunnel.net.notify import Notifier


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Serve until told to stop; the exit code. Raises ConfigError for a line that is wrong on the face of it."""
    inherited = take_inherited(environ, os.getpid())  # before anything is started that they do not concern
    notifier = Notifier(environ, os.getpid())
    log = open_log(proxy.check_line(arguments), STDOUT)
    log_capture = LogCapture()
    log_capture.install()
    try:
        log.info(f"starting tunnel in {command.name} mode")
        config = proxy.build(command, arguments)
        from tunnel.proxy.process import run_proxy
        from tunnel.proxy.process_context import ProcessContext

        holders = see_holders([config])
        begin([config], environ, log)
        return run_proxy(config, log, ProcessContext(environ, inherited, notifier, log_capture, holders))
    except TunnelError as error:
        log.write(f"error: {error}")
        log.flush()
        sys.stderr.write(one_line(f"error: {error}") + "\n")
        return 1
