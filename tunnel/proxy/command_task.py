"""The foreground task of `tunnel exec` and `tunnel run`: a command, with signals, and the end of its descendants."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import trio

from tunnel.child.exec_protocol import shell_exit_code
from tunnel.child.launcher import Launcher
from tunnel.child.reaper import end_descendants, reap_orphans
from tunnel.child.signal_probe import ReceivedSignal, SignalProbe
from tunnel.child.signals import SignalThread
from tunnel.errors import ConfigError, TunnelError
from tunnel.identity.wait_notice import wait_with_notice
from tunnel.lazy_dataclass import dataclass
from tunnel.log import Log
from tunnel.net.notify import State
from tunnel.proxy.process_context import ProcessContext
from tunnel.proxy.proxy import Proxy

_STOP = (signal.SIGTERM, signal.SIGINT)
_END = (*_STOP, signal.SIGQUIT)  # each of them ends the process while there is no command
_GRACE = 2.0  # seconds between SIGTERM and SIGKILL for descendants that the command has left
_FINAL_WAIT = 1.0  # seconds after the stop limit for killed processes to exit and status ports to respond


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """The command line and environment of the command; known when the proxies are ready, because of their ports."""

    argv: Sequence[str]
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StopPolicy:
    """The limits for start and stop; durations in seconds."""

    limit: float  # from the begin of the shutdown until everything is closed
    wait: float = 0.0  # limit for all proxies to become ready; 0 for none
    delay: float = 0.0  # shutdown delay: not ready, but connections are accepted
    is_service: bool = False  # SIGTERM and SIGINT stop the process; else they are forwarded like any signal


class CommandTask:
    """Starts the command when the proxy is ready; drains the proxy when the command has ended."""

    def __init__(
        self,
        proxy: Proxy,
        launcher: Launcher,
        probe: SignalProbe,
        build_command: Callable[[], CommandSpec],
        stop_policy: StopPolicy,
        process_context: ProcessContext,
        log: Log,
        report_wait: Callable[[], None],
    ) -> None:
        self._proxy = proxy
        proxy.state_reporter.on_identity_change = self._notify_identities
        self._launcher = launcher
        self._probe = probe
        self._build_command = build_command
        self._stop_policy = stop_policy
        self._process_context = process_context
        self._log = log
        self._report_wait = report_wait
        self._has_command = False
        self._is_delaying = False
        self._summary = ""  # for the service manager while the command runs
        self._command_over = trio.Event()
        self._unforwarded: set[int] = set()  # signals that are forwarded unless the command has received them
        self.failure: TunnelError | None = None
        self._wait_limit = trio.CancelScope()  # has a deadline from the begin of the shutdown on
        self.exit_code = 0  # of the command, or for the signal that came before its start

    async def run(self, nursery: trio.Nursery) -> None:
        """Return when the command and the connections have ended."""
        self._token = trio.lowlevel.current_trio_token()
        self._nursery = nursery
        self._cancel_scope = nursery.cancel_scope
        nursery.start_soon(self._await_shutdown)
        SignalThread(self._on_signal, self._on_delivery_known, self._has_command_received, self._on_child_ended)
        await self._start(nursery)
        await self._await_shutdown_end()

    # -- the start

    async def _start(self, nursery: trio.Nursery) -> None:
        limit = self._stop_policy.wait or math.inf
        with trio.move_on_after(limit) as waiting:
            await wait_with_notice(self._proxy.is_listening.wait, self._report_wait)
        if waiting.cancelled_caught:
            self.fail(ConfigError(f"not ready within {limit:g}s: the proxy for {self._proxy.problem}"))
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint_if_cancelled()  # the proxy may have failed when it became ready
        try:
            command = self._build_command()
            self._launcher.start(command.argv, command.environ)
        except TunnelError as error:
            self.fail(error)
            await trio.sleep_forever()
        self._has_command = True
        self._summary = f"running {command.argv[0]}"
        self._notify_identities()
        nursery.start_soon(self._watch_command)

    def _notify_identities(self) -> None:
        """Notify the service manager that the command runs, and of proxies without a valid identity."""
        if self._is_ending or self._is_delaying or not self._has_command:
            return
        self._process_context.notifier.notify(State.LISTENING, self._summary)
        if error := self._proxy.identity_error:
            self._process_context.notifier.notify(State.NOT_READY, f"{error}: {self._summary}")

    async def _watch_command(self) -> None:
        while (code := self._launcher.exit_code()) is None:
            await trio.lowlevel.wait_readable(self._launcher)
        self.exit_code = code
        self._log.info(f"command ended: exit_code={code}")
        self._command_over.set()

    def fail(self, error: TunnelError) -> None:
        """Shut down with this error, which the supervisor raises; only log it if the shutdown has begun already."""
        if self._cancel_scope.cancel_called:
            return
        if self._has_command:
            self._log.write(f"error: {error}")
        if not self._is_ending:
            self.failure = error
            self._shut_down(signal.SIGTERM)

    # -- the end

    async def _await_shutdown_end(self) -> None:
        """Wait for the command, then end its descendants, then drain the proxies."""
        with self._wait_limit:
            await self._command_over.wait()
        if not self._command_over.is_set():
            self._log.write(f"command has not ended within {self._stop_policy.limit:g}s: sending SIGKILL")
            self._launcher.send(signal.SIGKILL)
            self.exit_code = shell_exit_code(-signal.SIGKILL)
            with trio.move_on_after(_FINAL_WAIT):  # a process of another user or in uninterruptible sleep stays
                await self._command_over.wait()
        self._stop_servers()
        is_all = os.getpid() == 1  # the kernel kills all processes at the end of PID 1
        with trio.move_on_after(self._left() + _FINAL_WAIT):
            for pause in end_descendants(min(_GRACE, self._left()), self._waited_for(), is_everywhere=is_all):
                await trio.sleep(pause)
        with trio.move_on_after(self._left() + _FINAL_WAIT):
            await self._proxy.drain(self._left())

    async def _await_shutdown(self) -> None:
        await self._proxy.stop_requested.wait()
        if not (self._is_ending or self._is_delaying):  # else this supervisor has stopped it, or will
            self._request_stop(signal.SIGTERM)

    def _request_stop(self, number: int) -> None:
        """Begin the shutdown after the delay; a second request ends the delay."""
        limit = self._stop_policy.delay
        if not limit or self._is_delaying or not self._has_command:
            self._shut_down(number)
            return
        self._is_delaying = True
        self._log.info(f"shutdown delay: not ready, accepting connections for {limit:g}s more")
        self._process_context.notifier.notify(State.STOPPING, f"accepting connections for {limit:g}s more: {self._summary}")
        self._proxy.show_shutdown_delay(limit)
        self._nursery.start_soon(self._end_delay, number)

    async def _end_delay(self, number: int) -> None:
        await trio.sleep(self._stop_policy.delay)
        if not self._is_ending:
            self._log.info("shutdown delay is over")
            self._shut_down(number)

    def _shut_down(self, number: int) -> None:
        """Stop the servers and send the signal to the command; clients serve until it has ended."""
        if not self._has_command:
            self.exit_code = shell_exit_code(-number)
            self._cancel_scope.cancel()
            return
        self._stop_servers()
        self._launcher.send(number)

    def _stop_servers(self) -> None:
        """Start the stop limit, and stop accepting connections for servers; no effect if already done."""
        if self._is_ending:
            return
        self._wait_limit.deadline = trio.current_time() + self._stop_policy.limit
        self._process_context.notifier.notify(State.STOPPING, "stopping")
        self._proxy.stop_accepting(only_servers=True)

    @property
    def _is_ending(self) -> bool:
        return self._wait_limit.deadline < math.inf

    def _left(self) -> float:
        return max(self._wait_limit.deadline - trio.current_time(), 0.0)

    # -- callbacks of the signal thread

    def _on_signal(self, number: int, is_from_terminal: bool) -> None:
        try:
            self._token.run_sync_soon(self._process_signal, number, is_from_terminal)
        except trio.RunFinishedError:
            if number in _END:  # trio has ended, and the main thread waits for a blocked log reader
                os._exit(shell_exit_code(-number))

    def _process_signal(self, number: int, is_from_terminal: bool) -> None:
        if self._command_over.is_set():
            if self._terminates_us(number, is_from_terminal):  # do not wait for the drain
                self._proxy.abort()
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

    def _has_command_received(self, arrival: ReceivedSignal) -> bool:
        return self._probe.was_sent_to(self._launcher.pid, arrival)

    def _on_delivery_known(self, number: int, has_received: bool) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._forward_signal, number, has_received)

    def _forward_signal(self, number: int, has_received: bool) -> None:
        """Forward a signal once, unless the command has received it too; a stop may first have a delay."""
        if number not in self._unforwarded:
            return
        self._unforwarded.remove(number)
        if not self._is_stop(number):
            if not has_received:
                self._launcher.send(number)
        elif has_received:  # the command stops serving
            self._stop_servers()
        else:
            self._request_stop(number)

    def _terminates_us(self, number: int, is_from_terminal: bool) -> bool:
        """Whether a signal ends the process while no command runs; SIGHUP ends a service only if it is from the terminal."""
        return number in _END or (number == signal.SIGHUP and (is_from_terminal or not self._stop_policy.is_service))

    def _on_child_ended(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._reap)

    def _reap(self) -> None:
        reap_orphans(self._waited_for())

    def _waited_for(self) -> set[int]:
        """The child processes whose exit status is waited for elsewhere; they are not orphans."""
        return {self._launcher.pid, *self._probe.pids, *self._proxy.pids}
