"""`tunnel exec`: a command of the user's, with tunnels open for as long as it runs.

Knows the order of a start and what is said at the end; must not know how a tunnel is opened or a command started.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunnel.child.environment import for_command
from tunnel.child.launcher import Launcher
from tunnel.child.probe import SignalProbe
from tunnel.child.process_tree import become_subreaper
from tunnel.child.signals import block
from tunnel.cli.output import say
from tunnel.cli.parser import Arguments, Command
from tunnel.commands.deferred_log import DeferredLog
from tunnel.commands.exec import command as line
from tunnel.commands.start import begin, open_private_context
from tunnel.config.placeholders import Values, fill_places, variables
from tunnel.errors import CommandError, ConfigError, TunnelError
from tunnel.net.address import parse_address
from tunnel.net.notify import parse_notify_address
from tunnel.net.notify_relay import NotifyRelay
from tunnel.net.owner import overflow_user
from tunnel.net.private import private_directory

if TYPE_CHECKING:  # loaded when the line is known to be a good one, and the command's process is there
    from tunnel.proxy.proxy import Proxy
    from tunnel.proxy.supervisor import CommandSpec

_UNNAMED = "_"  # which no target can be called
_DRAIN = 5.0  # seconds for what the command has said last to reach the servers


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """The command's exit code, or one that says why there was none; raises ConfigError for a wrong line."""
    config = line.build(arguments)
    _check_user(config.targets)
    launcher, probe = Launcher(), SignalProbe()  # before there are threads, rules of Landlock, other signals
    block()
    deferred_log = DeferredLog(is_verbose=config.is_verbose)
    try:
        with _own_sockets(config.targets) as (targets, place), _open_relay(environ) as relay:
            code = _run(config.argv, _Prepared(targets, place, launcher, probe, relay, deferred_log), environ)
    except TunnelError as error:
        say(f"error: {error}")
        return error.exit_code if isinstance(error, CommandError) else command.failure
    finally:
        launcher.close()
        probe.close()
    deferred_log.report()
    return code


def _check_user(targets: Sequence[line.Target]) -> None:
    """Raise ConfigError if the kernel would not tell us from others at a port; at a socket the directory keeps them out."""
    if os.geteuid() == overflow_user() and not all(target.socket for target in targets):
        raise ConfigError(
            f"in this user namespace user {os.geteuid()} stands for many users, and all of them could use a port: "
            "say --unix FILE, or become a user that is mapped"
        )


@contextmanager
def _own_sockets(targets: Sequence[line.Target]) -> Iterator[tuple[Sequence[line.Target], str]]:
    """The targets with a place for each socket, in a directory that nobody else can enter and that goes at the end.

    And that directory, "" for none.
    """
    if not any(target.socket for target in targets):
        yield targets, ""
        return
    with private_directory(os.environ) as directory:
        # Of several targets each has a place of its own: two may want the same name.
        places = [directory / (target.name or _UNNAMED) if targets[1:] else directory for target in targets]
        yield [_with_socket(target, place) for target, place in zip(targets, places, strict=True)], str(directory)
    if directory.exists():
        say(f"{directory} is left behind: it could not be removed")


def _with_socket(target: line.Target, place: Path) -> line.Target:
    if not target.socket:
        return target
    place.mkdir(mode=0o700, exist_ok=True)
    try:
        address = parse_address(f"unix:{place / target.socket}")
    except ConfigError as error:
        raise ConfigError(f"--{line.UNIX.name}: {error}") from error
    return replace(target, config=replace(target.config, listen=address))


@contextmanager
def _open_relay(environ: Mapping[str, str]) -> Iterator[NotifyRelay | None]:
    """The relay of the command's notifications, if there is a service manager; without a place for its socket there is none."""
    with ExitStack() as resources:
        relay = None
        try:
            if parse_notify_address(environ.get("NOTIFY_SOCKET", "")):
                relay = NotifyRelay(environ, os.getpid(), resources.enter_context(private_directory(os.environ)))
                resources.callback(relay.close)
        except ConfigError as error:
            resources.close()  # now: later Landlock allows nothing there
            say(f"warning: the command cannot notify the service manager: {error}")
        yield relay


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is there before anything heavy is loaded."""

    targets: Sequence[line.Target]
    place: str
    launcher: Launcher
    probe: SignalProbe
    relay: NotifyRelay | None
    deferred_log: DeferredLog


def _run(argv: Sequence[str], prepared: _Prepared, environ: Mapping[str, str]) -> int:
    deferred_log, relay = prepared.deferred_log, prepared.relay
    process_context = open_private_context(environ)
    from tunnel.proxy.process import open_loop, open_proxy, settle
    from tunnel.proxy.supervisor import StopPolicy, Supervisor

    configs = [target.config for target in prepared.targets]
    private = tuple(filter(None, (prepared.place, relay.directory if relay else "")))
    begin(configs, environ, deferred_log.log, private=private, has_command=True)
    become_subreaper()
    if relay is not None:
        relay.start()
    with open_loop(deferred_log.log, process_context) as loop:
        proxies = [open_proxy(one, loop, deferred_log.log, process_context, process_context.notifier) for one in configs]
        named = {target.name: proxy for target, proxy in zip(prepared.targets, proxies, strict=True)}
        order = partial(_order, argv, named, relay.variables(prepared.launcher.pid) if relay else {}, deferred_log)
        stop_policy = StopPolicy(limit=_DRAIN)
        complain = partial(deferred_log.complain, configs[0].source)
        parts = proxies, prepared.launcher, prepared.probe
        supervisor = Supervisor(*parts, order, stop_policy, process_context, deferred_log.log, complain)
        settle()
        loop.run_trio(supervisor.run)
    return supervisor.exit_code


def _order(
    argv: Sequence[str], proxies: Mapping[str, Proxy], extra: Mapping[str, str], deferred_log: DeferredLog
) -> CommandSpec:
    """What to run, now that every port is known, with `extra` variables."""
    from tunnel.proxy.supervisor import CommandSpec

    deferred_log.log.flush()
    deferred_log.forget()  # what was in the way of a tunnel that is open now
    values = {name: _values(proxy) for name, proxy in proxies.items()}
    return CommandSpec(fill_places(argv, values), for_command({**variables(values), **extra}))


def _values(proxy: Proxy) -> Values:
    if isinstance(proxy.bound, str):
        return {"socket": proxy.bound, "dir": os.path.dirname(proxy.bound)}
    host, port = proxy.bound[:2]
    return {"host": host, "port": str(port), "addr": f"{host}:{port}"}
