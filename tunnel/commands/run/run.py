"""The run of `tunnel run`: start the proxies and the command under one supervisor."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

from tunnel.child.inherited import command_environment
from tunnel.child.kernel import become_subreaper
from tunnel.child.launcher import Launcher
from tunnel.child.signal_probe import SignalProbe
from tunnel.child.signals import block
from tunnel.cli.command import Arguments, Command
from tunnel.cli.output import print_message
from tunnel.commands.logs import open_access_log, open_log
from tunnel.commands.run.command import RunConfig, build
from tunnel.commands.start import find_port_holders, prepare
from tunnel.errors import CommandError, TunnelError
from tunnel.log import STDERR, Log
from tunnel.log_capture import LogCapture
from tunnel.net.activation import ActivationSockets, take_inherited
from tunnel.net.notify import Notifier


def run_command(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Run the command; its exit code, or one of our own. Raises ConfigError for a wrong line."""
    block()  # from here on no signal is lost: the kernel drops unhandled signals of process 1
    config = build(arguments, environ)
    inherited = take_inherited(environ, os.getpid())  # before the fork, which would inherit the sockets
    launcher, probe = Launcher(), SignalProbe()  # before threads and Landlock rules
    log = open_log(config.process.log, STDERR)
    try:
        return _run(config, (launcher, probe), inherited, log, environ)
    except TunnelError as error:
        log.flush()
        print_message(f"error: {error}")
        return error.exit_code if isinstance(error, CommandError) else command.failure
    finally:
        launcher.close()
        probe.close()


def _run(
    config: RunConfig,
    child: tuple[Launcher, SignalProbe],
    inherited: ActivationSockets,
    log: Log,
    environ: Mapping[str, str],
) -> int:
    log_capture = LogCapture()
    log_capture.install()
    notifier = Notifier(environ, os.getpid())
    from tunnel.proxy.command_task import CommandSpec, CommandTask, StopPolicy
    from tunnel.proxy.process import open_loop, open_proxy, supervise
    from tunnel.proxy.process_context import ProcessContext

    access_log = open_access_log(config.process.log, log, STDERR)
    process_context = ProcessContext(environ, inherited, notifier, log_capture, find_port_holders(config.process), access_log)
    for one in config.process.listeners:
        log.info(f"starting tunnel in {one.mode} mode")
    is_reconfigurable = config.reload_source is not None
    prepare(config.process, environ, log, has_command=True, is_reconfigurable=is_reconfigurable)
    if os.getpid() != 1:
        become_subreaper()
    with open_loop(log, process_context) as loop:
        no_notifier = Notifier({}, os.getpid())  # the service manager is notified once, not by each proxy
        proxy = open_proxy(config.process, loop, log, process_context, no_notifier, is_reconfigurable=is_reconfigurable)
        spec = CommandSpec(config.argv, command_environment({}))
        stop_policy = StopPolicy(config.stop_timeout, config.wait_ready, is_service=True, delay=config.process.shutdown_delay)
        task = CommandTask(proxy, *child, lambda: spec, stop_policy, process_context, log, lambda: None)
        return supervise(loop, proxy, task, process_context, log, config.reload_source)
