"""`tunnel connect`: standard input and output joined to one authenticated connection.

Knows the order of a start and what is said at the end; must not know how the connection is carried.
"""

from __future__ import annotations

import signal
from collections.abc import MutableMapping
from functools import partial

from tunnel.child.inherited import inherited
from tunnel.commands.deferred_log import DeferredLog
from tunnel.commands.output import say
from tunnel.commands.start import begin, open_private_context
from tunnel.config import connect
from tunnel.config.client_flags import VERBOSE
from tunnel.config.parser import Arguments, Command
from tunnel.errors import TunnelError


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """0 when the server has ended in good order, else 1 and a line that says why; raises ConfigError for a wrong line."""
    config = connect.build(arguments)
    for number in {signal.SIGHUP, signal.SIGUSR1, signal.SIGINT} - inherited().ignored:  # by `nohup`, by a shell for its `&`
        signal.signal(number, signal.SIG_DFL)  # nothing to reload or to drain: whoever wants us to end ends us
    deferred_log = DeferredLog(is_verbose=arguments[VERBOSE])
    process_context = open_private_context(environ)
    from tunnel.proxy.process import open_loop, open_proxy
    from tunnel.proxy.stdio_client import StdioClient

    try:
        begin([config], environ, deferred_log.log)
        with open_loop(deferred_log.log, process_context) as loop:
            proxy = open_proxy(config, loop, deferred_log.log, process_context, process_context.notifier)
            caller = StdioClient(proxy, partial(deferred_log.complain, config.source))
            loop.run_trio(caller.run)
    except TunnelError as error:
        say(f"error: {error}")
        return 1
    is_told = deferred_log.report()
    if caller.fault:
        say(f"error: {caller.fault}")
    elif not (caller.is_well or is_told or arguments[VERBOSE]):
        say("the connection was cut")
    return 0 if caller.is_well else 1
