"""`tunnel run`: proxies and a command under one roof, as the entry point of a container.

Knows the order of a start; must not know how a proxy serves or a command is started.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

from tunnel.child.environment import for_command
from tunnel.child.launcher import Launcher
from tunnel.child.probe import SignalProbe
from tunnel.child.process_tree import become_subreaper
from tunnel.child.signals import block
from tunnel.cli.output import say
from tunnel.cli.parser import Arguments, Command
from tunnel.commands.run import command as line
from tunnel.commands.start import begin, open_log, see_holders
from tunnel.errors import CommandError, TunnelError
from tunnel.log import STDERR, Log
from tunnel.log_capture import LogCapture
from tunnel.net.activation import ActivationSockets, take_inherited
from tunnel.net.notify import Notifier


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """The command's exit code, or one that says what failed; raises ConfigError for a wrong line."""
    block()  # from here on no signal is lost: as process 1 we would not even be ended by it
    config = line.build(arguments, environ)
    inherited = take_inherited(environ, os.getpid())  # before the fork, which would keep what was handed over to us
    launcher, probe = Launcher(), SignalProbe()  # before there are threads, or rules of Landlock
    log = open_log(config.log, STDERR)
    try:
        return _run(config, (launcher, probe), inherited, log, environ)
    except TunnelError as error:
        log.flush()
        say(f"error: {error}")
        return error.exit_code if isinstance(error, CommandError) else command.failure
    finally:
        launcher.close()
        probe.close()


def _run(
    config: line.RunConfig,
    child: tuple[Launcher, SignalProbe],
    inherited: ActivationSockets,
    log: Log,
    environ: Mapping[str, str],
) -> int:
    log_capture = LogCapture()
    log_capture.install()
    notifier = Notifier(environ, os.getpid())
    from tunnel.proxy.process import open_loop, open_proxy, settle
    from tunnel.proxy.process_context import ProcessContext
    from tunnel.proxy.supervisor import CommandSpec, StopPolicy, Supervisor

    process_context = ProcessContext(environ, inherited, notifier, log_capture, see_holders(config.proxies))
    for one in config.proxies:
        log.info(f"starting tunnel in {'server' if one.is_server else 'client'} mode")
    begin(config.proxies, environ, log, has_command=True)
    if os.getpid() != 1:
        become_subreaper()
    with open_loop(log, process_context) as loop:
        silent = Notifier({}, os.getpid())  # the manager hears of the whole, not of each proxy
        proxies = [open_proxy(one, loop, log, process_context, silent) for one in config.proxies]
        order = CommandSpec(config.argv, for_command({}))
        stop_policy = StopPolicy(config.wait_ready, config.stop_timeout, is_service=True, delay=config.shutdown_delay)
        supervisor = Supervisor(proxies, *child, lambda: order, stop_policy, process_context, log, lambda: None)
        settle()
        loop.run_trio(supervisor.run)
    return supervisor.exit_code
