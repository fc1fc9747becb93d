"""Proxies and one command of the user's, under one roof: `tunnel exec` and `tunnel run`.

Knows who waits for whom at the start and at the end, and which signals are the command's; must not know what the command is,
nor what the proxies carry.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from tunnel.child.exec_protocol import code_of_end
from tunnel.child.launcher import Launcher
from tunnel.child.probe import Arrival, SignalProbe
from tunnel.child.process_tree import end_descendants, reap_orphans
from tunnel.child.signals import SignalThread
from tunnel.errors import ConfigError, TunnelError
from tunnel.log import Log
from tunnel.net.notify import State
from tunnel.proxy.background_tasks import run_background_tasks
from tunnel.proxy.process_context import ProcessContext
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.wait_ready import wait_ready

_STOP = (signal.SIGTERM, signal.SIGINT)
_END = (*_STOP, signal.SIGQUIT)  # of them each ends us while there is no command that could take it
_GRACE = 2.0  # seconds between SIGTERM and SIGKILL for what a command has left behind
_FINAL_WAIT = 1.0  # seconds, when the time is over, for what must still be seen to: a death, an answer at a status port


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """What to run, known when the proxies are ready: their ports are."""

    argv: Sequence[str]
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StopPolicy:
    """How the household lives; durations in seconds."""

    wait: float = 0.0  # for all proxies to be ready; 0 for as long as they themselves wait
    limit: float = 25.0  # from the beginning of the end until everything is cut
    delay: float = 0.0  # from the request to stop until the end begins: everything is served, and reported not ready
    is_service: bool = False  # it is stopped by SIGTERM and SIGINT; else they are the command's like any other


class Supervisor:
    """Starts the proxies, then the command; ends with the command."""

    def __init__(
        self,
        proxies: Sequence[Proxy],
        launcher: Launcher,
        probe: SignalProbe,
        build_command: Callable[[], CommandSpec],
        stop_policy: StopPolicy,
        process_context: ProcessContext,
        log: Log,
        report_wait: Callable[[], None],
    ) -> None:
        self._proxies = proxies
        self._launcher = launcher
        self._probe = probe
        self._build_command = build_command
        self._stop_policy = stop_policy
        self._process_context = process_context
        self._log = log
        self._report_wait = report_wait
        self._has_command = False
        self._is_delaying = False
        self._summary = ""  # of what the manager is told while the command runs
        self._command_over = trio.Event()
        self._unforwarded: set[int] = set()  # signals for the command, which may have had them
        self._failure: TunnelError | None = None
        self._wait_limit = trio.CancelScope()  # its deadline is when everything is cut, none until the end begins
        self._exit_code = 0

    async def run(self) -> None:
        """Return when the command and the connections have ended; raises TunnelError when a proxy could not begin or go on."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._cancel_scope = nursery.cancel_scope
            for proxy in self._proxies:
                proxy.on_identity_change = self._notify_identities
                nursery.start_soon(self._run_proxy, proxy)
                nursery.start_soon(self._await_shutdown, proxy)
            nursery.start_soon(run_background_tasks, self._process_context, self._log)
            SignalThread(self._on_signal, self._on_delivery_known, self._has_command_received, self._on_child_ended)
            await self._start(nursery)
            await self._await_shutdown_end()
            self._cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    @property
    def exit_code(self) -> int:
        """The command's, or of the signal that came before there was one."""
        return self._exit_code

    # -- the start

    async def _start(self, nursery: trio.Nursery) -> None:
        limit = self._stop_policy.wait or math.inf
        with trio.move_on_after(limit) as waiting:
            await wait_ready(self._proxies, self._report_wait)
        if waiting.cancelled_caught:
            late = ", ".join(str(proxy.config.target) for proxy in self._proxies if not proxy.is_listening.is_set())
            self._fail(ConfigError(f"not ready within {limit:g}s: the proxy for {late}"))
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint_if_cancelled()  # the last one may have become ready as another one failed
        try:
            command = self._build_command()
            self._launcher.start(command.argv, command.environ)
        except TunnelError as error:
            self._fail(error)
            await trio.sleep_forever()
        self._has_command = True
        self._summary = f"running {command.argv[0]}"
        self._notify_identities()
        nursery.start_soon(self._watch_command)

    def _notify_identities(self) -> None:
        """Tell the manager that the command runs, and which of the proxies cannot serve it."""
        if self._is_ending or self._is_delaying or not self._has_command:
            return
        self._process_context.notifier.notify(State.LISTENING, self._summary)
        errors = dict.fromkeys(proxy.tunnel.identity_error for proxy in self._proxies)
        if any(errors):
            self._process_context.notifier.notify(State.NOT_READY, f"{', '.join(filter(None, errors))}: {self._summary}")

    async def _watch_command(self) -> None:
        while (code := self._launcher.exit_code()) is None:
            await trio.lowlevel.wait_readable(self._launcher)
        self._exit_code = code
        self._log.info(f"the command has ended with {code}")
        self._command_over.set()

    async def _run_proxy(self, proxy: Proxy) -> None:
        try:
            await proxy.run()
        except TunnelError as error:
            self._fail(error)

    def _fail(self, error: TunnelError) -> None:
        """End, with this reason: at once if there is no command, else as soon as it has ended.

        When the end has begun already, whatever began it is the reason: the exit code is what that made of it.
        """
        if self._cancel_scope.cancel_called:
            return
        if self._has_command:
            self._log.write(f"error: {error}")
        if not self._is_ending:
            self._failure = error
            self._shut_down(signal.SIGTERM)

    # -- the end

    async def _await_shutdown_end(self) -> None:
        """The command first, then what it has left behind, then what is still carried."""
        with self._wait_limit:
            await self._command_over.wait()
        if not self._command_over.is_set():
            self._log.write(f"the command has not ended within {self._stop_policy.limit:g}s: it is killed")
            self._launcher.send(signal.SIGKILL)
            self._exit_code = code_of_end(-signal.SIGKILL)
            with trio.move_on_after(_FINAL_WAIT):  # another user's cannot be killed, nor what is in the kernel's hands
                await self._command_over.wait()
        self._stop_servers()
        is_all = os.getpid() == 1  # whom the kernel kills when we end, without a word
        with trio.move_on_after(self._left() + _FINAL_WAIT):
            for pause in end_descendants(min(_GRACE, self._left()), self._waited_for(), is_everywhere=is_all):
                await trio.sleep(pause)
        with trio.move_on_after(self._left() + _FINAL_WAIT):
            async with trio.open_nursery() as nursery:
                for proxy in self._proxies:
                    nursery.start_soon(proxy.drain, self._left())

    async def _await_shutdown(self, proxy: Proxy) -> None:
        await proxy.stop_requested.wait()
        if not (self._is_ending or self._is_delaying):  # else it is we who have shut it, or are about to
            self._request_stop(signal.SIGTERM)

    def _request_stop(self, number: int) -> None:
        """Begin the end, with a signal for the command; first comes the delay, which a second request ends."""
        limit = self._stop_policy.delay
        if not limit or self._is_delaying or not self._has_command:
            self._shut_down(number)
            return
        self._is_delaying = True
        self._log.info(f"shutdown delay: not ready, accepting connections for {limit:g}s more")
        self._process_context.notifier.notify(State.STOPPING, f"accepting connections for {limit:g}s more: {self._summary}")
        for proxy in self._proxies:
            proxy.show_shutdown_delay(limit)
        self._nursery.start_soon(self._end_delay, number)

    async def _end_delay(self, number: int) -> None:
        await trio.sleep(self._stop_policy.delay)
        if not self._is_ending:
            self._log.info("shutdown delay is over")
            self._shut_down(number)

    def _shut_down(self, number: int) -> None:
        """Servers accept no more and the command is told; clients serve it until it has ended."""
        if not self._has_command:
            self._exit_code = code_of_end(-number)
            self._cancel_scope.cancel()
            return
        self._stop_servers()
        self._launcher.send(number)

    def _stop_servers(self) -> None:
        """From now on, or from before, the time runs and servers accept no more."""
        if self._is_ending:
            return
        self._wait_limit.deadline = trio.current_time() + self._stop_policy.limit
        self._process_context.notifier.notify(State.STOPPING, "stopping")
        for proxy in self._proxies:
            if proxy.config.is_server:
                proxy.stop_accepting()

    @property
    def _is_ending(self) -> bool:
        return self._wait_limit.deadline < math.inf

    def _left(self) -> float:
        return max(self._wait_limit.deadline - trio.current_time(), 0.0)

    # -- what the thread of signals hears

    def _on_signal(self, number: int, is_from_terminal: bool) -> None:
        try:
            self._token.run_sync_soon(self._process_signal, number, is_from_terminal)
        except trio.RunFinishedError:
            if number in _END:  # all has ended, and the main thread waits for whoever should read its last line
                os._exit(code_of_end(-number))

    def _process_signal(self, number: int, is_from_terminal: bool) -> None:
        if self._command_over.is_set():
            if self._terminates_us(number, is_from_terminal):  # whoever says so does not want to wait for the rest
                for proxy in self._proxies:
                    proxy.tunnel.abort()
        elif not self._has_command:
            if self._terminates_us(number, is_from_terminal):
                self._shut_down(number)
        else:
            self._unforwarded.add(number)
            if self._is_stop(number):
                self._log.info(f"received {signal.Signals(number).name}, shutting down")
                if is_from_terminal or not self._stop_policy.delay:
                    self._stop_servers()

    def _is_stop(self, number: int) -> bool:
        return self._stop_policy.is_service and number in _STOP

    def _has_command_received(self, arrival: Arrival) -> bool:
        return self._probe.has_had(self._launcher.pid, arrival)

    def _on_delivery_known(self, number: int, has_received: bool) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._forward_signal, number, has_received)

    def _forward_signal(self, number: int, has_received: bool) -> None:
        """Send a signal on, once, unless its sender has sent it to the command too; a stop may have a delay before that."""
        if number not in self._unforwarded:
            return
        self._unforwarded.remove(number)
        if not self._is_stop(number):
            if not has_received:
                self._launcher.send(number)
        elif has_received:  # the command is about to serve no more
            self._stop_servers()
        else:
            self._request_stop(number)

    def _terminates_us(self, number: int, is_from_terminal: bool) -> bool:
        """While there is no command; to a service SIGHUP means that the terminal is gone, or it was meant for the command."""
        return number in _END or (number == signal.SIGHUP and (is_from_terminal or not self._stop_policy.is_service))

    def _on_child_ended(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._reap)

    def _reap(self) -> None:
        reap_orphans(self._waited_for())

    def _waited_for(self) -> set[int]:
        """Our children whose status somebody waits for, and which are no orphans."""
        return {self._launcher.pid, *self._probe.pids}.union(*(proxy.pids for proxy in self._proxies))
