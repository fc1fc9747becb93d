"""`tunnel connect`: join standard input and output to one authenticated connection."""

from __future__ import annotations

import signal
from collections.abc import MutableMapping
from functools import partial

from tunnel.cli.output import say
from tunnel.cli.parser import Arguments, Command, Group, option, word
from tunnel.commands.client_flags import IDENTITY, VERBOSE, as_client
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy import tls
from tunnel.commands.proxy.access import VERIFY
from tunnel.config.model import ProxyConfig
from tunnel.config.values import parse_limit
from tunnel.errors import TunnelError
from tunnel.net.address import parse_address

SERVER = word("HOST:PORT", "The server, which speaks mutual TLS; unix:PATH for a socket of this machine.", parse_address)

CLOSE_TIMEOUT = option(
    proxy.CLOSE_TIMEOUT.name,
    "Limit for silence after the input has ended; default 24h: whoever asks waits for the answer.",
    parse_limit,
    86_400.0,
    placeholder="TIME",
)

COMMAND = Command(
    "connect",
    "Join standard input and output to one authenticated connection.",
    (
        Group("Which server is meant: with the Workload API at least one of these, joined by or", VERIFY.admitting()),
        IDENTITY,
        Group("The way there", (proxy.SERVER_NAME, proxy.PROXY)),
        Group("Limits", (proxy.CONNECT_TIMEOUT, CLOSE_TIMEOUT, *tls.FLAGS)),
        Group("The process", (VERBOSE, proxy.DISABLE_LANDLOCK)),
    ),
    """\
The end of the input is passed on, and the command ends when the server has ended. It says
nothing unless something goes wrong: then it is one line on standard error, and exit code 1.

Examples:
  echo PING | tunnel connect --verify-id spiffe://example.org/cache cache.example.org:8443
  ssh -o 'ProxyCommand=tunnel connect --verify-id spiffe://example.org/%h %h:8022' \\
      build.example.org
""",
    words=(SERVER,),
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> ProxyConfig:
    """The connection that is wanted; raises ConfigError."""
    return proxy.build_client(as_client(arguments, {proxy.CLOSE_TIMEOUT: arguments[CLOSE_TIMEOUT]}), None, arguments[SERVER])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """0 when the server has ended in good order, else 1 and a line that says why; raises ConfigError for a wrong line."""
    config = build(arguments)
    from tunnel.child.inherited import inherited
    from tunnel.commands.deferred_log import DeferredLog
    from tunnel.commands.start import begin, open_private_context

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
