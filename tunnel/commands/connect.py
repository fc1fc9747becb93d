"""`tunnel connect`: join standard input and output to one authenticated connection."""

from __future__ import annotations

import signal
from collections.abc import MutableMapping
from functools import partial

from tunnel.cli.command import Arguments, Command, Group, option, positional
from tunnel.cli.output import print_message
from tunnel.commands.client_flags import IDENTITY, PROCESS, VERBOSE, as_client
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy import limits, tls
from tunnel.commands.proxy.access import VERIFY
from tunnel.config.model import ProcessConfig
from tunnel.config.values import parse_limit
from tunnel.errors import TunnelError
from tunnel.net.address import parse_address

_CLOSE_TIMEOUT = 86_400.0  # seconds: a server may take long to answer

SERVER = positional("HOST:PORT", "Address of the server, which accepts mutual TLS, or unix:PATH", parse_address)
CLOSE_TIMEOUT = option(
    limits.CLOSE_TIMEOUT.name,
    "Maximum idle time after the end of standard input",
    parse_limit,
    _CLOSE_TIMEOUT,
    placeholder="TIME",
)

COMMAND = Command(
    "connect",
    "Join standard input and output to one authenticated connection.",
    (
        Group(proxy.SERVER_RULES, VERIFY.admitting()),
        IDENTITY,
        Group("Route", (proxy.SERVER_NAME, proxy.PROXY)),
        Group("Limits", (limits.CONNECT_TIMEOUT, CLOSE_TIMEOUT, *tls.FLAGS)),
        PROCESS,
    ),
    """\
The end of standard input is passed on. The command ends when the server closes the connection. It
prints nothing of its own unless something fails: then it prints one line on standard error and
exits with 1.

Examples:
  echo PING | tunnel connect --verify-id spiffe://example.org/cache cache.example.org:8443
  ssh -o 'ProxyCommand=tunnel connect --verify-id spiffe://example.org/%h %h:8022' \\
      build.example.org
""",
    positionals=(SERVER,),
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> ProcessConfig:
    """The configuration of the connection; raises ConfigError."""
    from tunnel.commands.proxy.build import build_client, build_process

    line = as_client(arguments, {limits.CLOSE_TIMEOUT: arguments[CLOSE_TIMEOUT]})
    return build_process(line, (build_client(line, None, arguments[SERVER]),))


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Relay the connection; 0 if the server closed it normally, else 1 with one line. Raises ConfigError for a wrong line."""
    config = build(arguments)
    from tunnel.child.inherited import inherited
    from tunnel.commands.deferred_log import DeferredLog
    from tunnel.commands.start import open_process_context, prepare

    # There is nothing to reload or to drain: these signals end the process, unless `nohup` or a shell's `&` ignored them.
    for number in {signal.SIGHUP, signal.SIGUSR1, signal.SIGINT} - inherited().ignored:
        signal.signal(number, signal.SIG_DFL)
    deferred_log = DeferredLog(is_verbose=arguments[VERBOSE])
    process_context = open_process_context(environ)
    from tunnel.proxy.process import open_loop, open_proxy, supervise
    from tunnel.proxy.stdio_task import StdioTask

    try:
        prepare(config, environ, deferred_log.log)
        with open_loop(deferred_log.log, process_context) as loop:
            (listener,) = config.listeners
            proxy = open_proxy(config, loop, deferred_log.log, process_context, process_context.notifier)
            client = StdioTask(proxy, partial(deferred_log.report_waiting, listener.identity.source))
            supervise(loop, proxy, client, process_context, deferred_log.log)
    except TunnelError as error:
        print_message(f"error: {error}")
        return 1
    has_reported = deferred_log.report()
    if client.fault:
        print_message(f"error: {client.fault}")
    elif not (client.has_succeeded or has_reported or arguments[VERBOSE]):
        print_message("connection closed without TLS close_notify")
    return 0 if client.has_succeeded else 1
