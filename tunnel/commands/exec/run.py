"""The run of `tunnel exec`: open the tunnels, run the command, report failures at its end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunnel.child.inherited import command_environment
from tunnel.child.kernel import become_subreaper
from tunnel.child.launcher import Launcher
from tunnel.child.signal_probe import SignalProbe
from tunnel.child.signals import block
from tunnel.cli.command import Arguments, Command
from tunnel.cli.output import print_message
from tunnel.commands.deferred_log import DeferredLog
from tunnel.commands.exec.build import ExecConfig, ExecTarget, build
from tunnel.commands.exec.command import UNIX
from tunnel.commands.start import open_process_context, prepare
from tunnel.config.placeholders import Values, environment_variables, fill_placeholders
from tunnel.errors import CommandError, ConfigError, TunnelError
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.net.address import parse_address
from tunnel.net.notify import parse_notify_address
from tunnel.net.notify_relay import NotifyRelay
from tunnel.net.owner import overflow_user
from tunnel.net.private import private_directory

if TYPE_CHECKING:  # loaded when the line is known to be valid and the command's process exists
    from tunnel.proxy.command_task import CommandSpec
    from tunnel.proxy.proxy_listener import ProxyListener

_UNNAMED = "_"  # not a valid name of a target
_DRAIN = 5.0  # seconds for the command's last bytes to reach the servers


def run_command(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Run the command; its exit code, or one of our own. Raises ConfigError for a wrong line."""
    config = build(arguments)
    _check_user(config.targets)
    launcher, probe = Launcher(), SignalProbe()  # before threads, Landlock rules and other signals
    block()
    deferred_log = DeferredLog(is_verbose=config.is_verbose)
    try:
        with _private_sockets(config.targets) as (targets, directory), _open_relay(environ) as relay:
            code = _run(config, _Prepared(targets, directory, launcher, probe, relay, deferred_log), environ)
    except TunnelError as error:
        print_message(f"error: {error}")
        return error.exit_code if isinstance(error, CommandError) else command.failure
    finally:
        launcher.close()
        probe.close()
    deferred_log.report()
    return code


def _check_user(targets: Sequence[ExecTarget]) -> None:
    """Raise ConfigError if the kernel cannot distinguish our user from others at a port; a socket is in a private directory."""
    if os.geteuid() == overflow_user() and not all(target.socket for target in targets):
        raise ConfigError(
            f"in this user namespace user {os.geteuid()} stands for many users, and all of them could use a port; expected "
            "--unix FILE, or a user that is mapped"
        )


@contextmanager
def _private_sockets(targets: Sequence[ExecTarget]) -> Iterator[tuple[Sequence[ExecTarget], str]]:
    """The targets with an address for each socket in a private directory that is removed at the end; and the directory.

    The directory is "" if no target has a socket.
    """
    if not any(target.socket for target in targets):
        yield targets, ""
        return
    with private_directory(os.environ) as directory:
        # Each of several targets has a directory: two sockets can have the same name.
        places = [directory / (target.name or _UNNAMED) if targets[1:] else directory for target in targets]
        yield [_with_socket(target, place) for target, place in zip(targets, places, strict=True)], str(directory)
    if directory.exists():
        print_message(f"warning: {directory} could not be removed")


def _with_socket(target: ExecTarget, place: Path) -> ExecTarget:
    if not target.socket:
        return target
    place.mkdir(mode=0o700, exist_ok=True)
    try:
        address = parse_address(f"unix:{place / target.socket}")
    except ConfigError as error:
        raise ConfigError(f"--{UNIX.name}: {error}") from error
    return replace(target, config=replace(target.config, listen=address))


@contextmanager
def _open_relay(environ: Mapping[str, str]) -> Iterator[NotifyRelay | None]:
    """The relay of the command's notifications to the service manager; None if there is no manager or no directory for it."""
    with ExitStack() as resources:
        relay = None
        try:
            if parse_notify_address(environ.get("NOTIFY_SOCKET", "")):
                relay = NotifyRelay(environ, os.getpid(), resources.enter_context(private_directory(os.environ)))
                resources.callback(relay.close)
        except ConfigError as error:
            resources.close()  # now: later Landlock denies access to the directory
            print_message(f"warning: the command cannot notify the service manager: {error}")
        yield relay


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is opened before large modules are loaded."""

    targets: Sequence[ExecTarget]
    directory: str
    launcher: Launcher
    probe: SignalProbe
    relay: NotifyRelay | None
    deferred_log: DeferredLog


def _run(config: ExecConfig, prepared: _Prepared, environ: Mapping[str, str]) -> int:
    deferred_log, relay = prepared.deferred_log, prepared.relay
    process_context = open_process_context(environ)
    from tunnel.proxy.command_task import CommandTask, StopPolicy
    from tunnel.proxy.process import open_loop, open_proxy, supervise

    process = replace(config.process, listeners=tuple(target.config for target in prepared.targets))
    private = tuple(filter(None, (prepared.directory, relay.directory if relay else "")))
    prepare(process, environ, deferred_log.log, private=private, has_command=True)
    become_subreaper()
    if relay is not None:
        relay.start()
    with open_loop(deferred_log.log, process_context) as loop:
        proxy = open_proxy(process, loop, deferred_log.log, process_context, process_context.notifier)
        named = {target.name: proxy.listeners[target.config.name] for target in prepared.targets}
        make_spec = partial(
            _build_spec, config.argv, named, relay.variables(prepared.launcher.pid) if relay else {}, deferred_log
        )
        stop_policy = StopPolicy(limit=_DRAIN)
        report_waiting = partial(deferred_log.report_waiting, process.listeners[0].identity.source)
        parts = proxy, prepared.launcher, prepared.probe
        task = CommandTask(*parts, make_spec, stop_policy, process_context, deferred_log.log, report_waiting)
        return supervise(loop, proxy, task, process_context, deferred_log.log)


def _build_spec(
    argv: Sequence[str], listeners: Mapping[str, ProxyListener], extra: Mapping[str, str], deferred_log: DeferredLog
) -> CommandSpec:
    """The command with every port filled in, and with `extra` environment variables."""
    from tunnel.proxy.command_task import CommandSpec

    deferred_log.log.flush()
    deferred_log.clear()  # failures before the tunnels were open
    values = {name: _values(listener) for name, listener in listeners.items()}
    return CommandSpec(fill_placeholders(argv, values), command_environment({**environment_variables(values), **extra}))


def _values(listener: ProxyListener) -> Values:
    if isinstance(listener.bound, str):
        return {"socket": listener.bound, "dir": os.path.dirname(listener.bound)}
    host, port = listener.bound[:2]
    return {"host": host, "port": str(port), "addr": f"{host}:{port}"}
