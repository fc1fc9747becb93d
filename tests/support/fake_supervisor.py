"""A supervisor with fake proxies, command and signals, and a clock that advances when all tasks are blocked."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.recorded_log import RecordedLog
from tunnel.errors import TunnelError
from tunnel.net.notify import State
from tunnel.proxy import command_task
from tunnel.proxy.command_task import CommandSpec, CommandTask, StopPolicy
from tunnel.proxy.reload_request import ReloadRequest
from tunnel.proxy.supervisor import Supervisor

SERVICE = StopPolicy(wait=15, limit=25, is_service=True)
DELAYED = StopPolicy(wait=15, limit=25, is_service=True, delay=10)
NO_SERVICE = StopPolicy(limit=5)
PROBE = 1 << 29  # the process number of the signal probe

Script = Callable[["SupervisorHarness"], Awaitable[object]]


class FakeProxy:
    """The part of a proxy that serves one listener, whose connections last `carries` seconds.

    It is ready from the start, or when the test sets `is_listening`.
    """

    def __init__(self, *, is_server: bool = False, is_ready: bool = True, carries: float = 0.0, lingers: float = 0.0) -> None:
        self.config = SimpleNamespace(is_server=is_server, target_name="target")
        self.stop_requested = trio.Event()
        self.is_listening = trio.Event()
        self.identity_error = ""
        self.problem = ""
        self.on_identity_change: Callable[[], None] = lambda: None
        self.pids: set[int] = set()
        self.stopped_accepting_at: float | None = None
        self.delays: list[float] = []  # shutdown delays shown
        self.aborts: list[float] = []
        self._is_ready = is_ready
        self._carries = carries
        self._lingers = lingers
        self._empty = trio.Event()
        self._over = trio.Event()
        self._end: TunnelError | None = None
        self._on_end: Callable[[], None] = lambda: None

    async def run(self) -> None:
        if self._is_ready:
            self.is_listening.set()
        try:
            await self._over.wait()
        except trio.Cancelled:
            if self._end is not None:
                raise self._end from None
            raise
        if self._end is not None:
            raise self._end

    def fail(self, error: TunnelError, *, only_when_cancelled: bool = False) -> None:
        self._end = error
        if not only_when_cancelled:
            self._over.set()

    def show_shutdown_delay(self, seconds: float) -> None:
        self.delays.append(seconds)

    def stop_accepting(self) -> None:
        self.stop_requested.set()
        if self.stopped_accepting_at is None:
            self.stopped_accepting_at = trio.current_time()

    def abort(self) -> int:
        self.aborts.append(trio.current_time())
        self._empty.set()
        return 0

    async def sleep_and_confirm(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def drain(self, limit: float) -> int:
        self.stop_accepting()
        with trio.move_on_after(min(self._carries, limit)):
            await self._empty.wait()
        if self._carries > limit and not self.aborts:
            self.abort()
        await trio.sleep(self._lingers)
        return 0


class FakeProcess:
    """A proxy with several listeners."""

    def __init__(self, parts: Sequence[FakeProxy]) -> None:
        self._parts = parts
        self.is_listening = trio.Event()
        self.stop_requested = trio.Event()
        self.reload_request = ReloadRequest()
        self.config = SimpleNamespace(timed_reload=0.0)
        self.state_reporter = SimpleNamespace(on_identity_change=lambda: None)

    async def run(self) -> None:
        for part in self._parts:
            part.on_identity_change = lambda: self.state_reporter.on_identity_change()
        try:
            async with trio.open_nursery() as nursery:
                for part in self._parts:
                    nursery.start_soon(part.run)
                    nursery.start_soon(self._await_stop, part)
                for part in self._parts:
                    await part.is_listening.wait()
                self.is_listening.set()
        except BaseExceptionGroup as group:
            errors = group.subgroup(TunnelError)
            raise errors.exceptions[0] if errors else group from None

    async def _await_stop(self, part: FakeProxy) -> None:
        await part.stop_requested.wait()
        self.stop_requested.set()

    @property
    def problem(self) -> str:
        late = [part for part in self._parts if not part.is_listening.is_set()]
        return ", ".join(f"target ({part.problem})" if part.problem else "target" for part in late)

    @property
    def identity_error(self) -> str:
        return ", ".join(dict.fromkeys(part.identity_error for part in self._parts if part.identity_error))

    @property
    def pids(self) -> set[int]:
        return set().union(*(part.pids for part in self._parts))

    def show_shutdown_delay(self, seconds: float) -> None:
        for part in self._parts:
            part.show_shutdown_delay(seconds)

    def stop_accepting(self, *, only_servers: bool = False) -> None:
        for part in self._parts:
            if part.config.is_server or not only_servers:
                part.stop_accepting()

    def abort(self) -> None:
        for part in self._parts:
            part.abort()

    async def sleep_and_confirm(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def drain(self, limit: float) -> None:
        async with trio.open_nursery() as nursery:
            for part in self._parts:
                nursery.start_soon(part.drain, limit)


class FakeLauncher:
    """A command that ends when the test calls `end`, or after a delay by the signals in `exits_on`."""

    pid = 1 << 30

    def __init__(self, exits_on: Mapping[int, float], error: TunnelError | None = None) -> None:
        self._readable, self._end_of_pipe = os.pipe()
        self.sent: list[tuple[float, int]] = []
        self.is_started = trio.Event()
        self._dies_of = exits_on
        self._error = error
        self._code: int | None = None
        self.nursery: trio.Nursery

    def fileno(self) -> int:
        return self._readable

    def start(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        if self._error is not None:
            raise self._error
        self.is_started.set()

    def send(self, number: int) -> None:
        assert self.is_started.is_set(), "no signal may be sent before the command starts"
        self.sent.append((trio.current_time(), number))
        if number in self._dies_of:
            self.nursery.start_soon(self._exit_after, self._dies_of[number], 128 + number)

    async def _exit_after(self, delay: float, code: int) -> None:
        await trio.sleep(delay)
        self.end(code)

    def end(self, code: int) -> None:
        if self._code is None:
            self._code = code
            os.close(self._end_of_pipe)

    def exit_code(self) -> int | None:
        return self._code

    def close(self) -> None:
        self.end(0)
        os.close(self._readable)


class SupervisorHarness:
    """A supervisor and the fakes that it uses."""

    def __init__(
        self,
        *proxies: FakeProxy,
        stop_policy: StopPolicy = SERVICE,
        exits_on: Mapping[int, float] | None = None,
        error: TunnelError | None = None,
        build_command: Callable[[], CommandSpec] = lambda: CommandSpec(("app",), {}),
    ) -> None:
        self.proxies = proxies or (FakeProxy(is_server=True), FakeProxy())
        self.launcher = FakeLauncher({signal.SIGTERM: 0, signal.SIGKILL: 0} if exits_on is None else exits_on, error)
        self.log = RecordedLog()
        self.notified: list[tuple[float, State]] = []
        self.summaries: list[str] = []  # of the notifications
        self._on_signal: Callable[[int, bool], None]
        self._on_settled: Callable[[int, bool], None]
        self.spared: set[int]  # when what the command has left is ended
        notifier = SimpleNamespace(run_watchdog=lambda sleep: sleep(0), notify=self._tell)
        process_context = SimpleNamespace(
            notifier=notifier, log_capture=SimpleNamespace(drain=lambda _write: None), access_log=None
        )
        probe = SimpleNamespace(pids={PROBE})
        proxy: Any = FakeProcess(self.proxies)
        parts: tuple[Any, ...] = (proxy, self.launcher, probe, build_command, stop_policy, process_context, self.log)
        context: Any = process_context
        self.supervisor = Supervisor(proxy, CommandTask(*parts, lambda: None), context, self.log)

    def take_signals(self, on_signal: Callable[[int, bool], None], on_settled: Callable[[int, bool], None]) -> None:
        self._on_signal, self._on_settled = on_signal, on_settled

    def send_signal(self, number: int, is_from_terminal: bool, *, has_had: bool | None = None) -> None:
        """Deliver a signal; by default the command has received it too if it is from the terminal."""
        self._on_signal(number, is_from_terminal)
        self._on_settled(number, is_from_terminal if has_had is None else has_had)

    def _tell(self, state: State, summary: str) -> None:
        self.notified.append((trio.current_time(), state))
        self.summaries.append(summary)

    async def run(self, script: Script) -> None:
        async with trio.open_nursery() as nursery:
            self.launcher.nursery = nursery
            nursery.start_soon(script, self)
            await self.supervisor.run()
            self.ended_at = trio.current_time()
            nursery.cancel_scope.cancel()


def replace_processes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace real signals and processes by fakes; return the grace periods that are recorded."""
    graces: list[float] = []

    def end_descendants(grace: float, own: Collection[int] = (), *, is_everywhere: bool = False) -> Iterator[float]:
        graces.append(grace)
        _running[-1].spared = set(own)
        yield min(grace, 0.5)

    def listen(on_signal: Callable[[int, bool], None], on_settled: Callable[[int, bool], None], *_: object) -> None:
        _running[-1].take_signals(on_signal, on_settled)

    monkeypatch.setattr(command_task, "end_descendants", end_descendants)
    monkeypatch.setattr(command_task, "SignalThread", listen)
    return graces


_running: list[SupervisorHarness] = []


def run_supervisor(harness: SupervisorHarness, script: Script) -> int:
    """Run the supervisor beside a script; return its exit code."""
    _running.append(harness)
    try:
        trio.run(harness.run, script, clock=trio.testing.MockClock(autojump_threshold=0.005))
    except BaseExceptionGroup as group:
        (error,) = group.exceptions  # of the harness's own nursery
        raise error from None
    finally:
        harness.launcher.close()
    return harness.supervisor.exit_code


async def wait_for_command(harness: SupervisorHarness) -> None:
    await harness.launcher.is_started.wait()
    await trio.testing.wait_all_tasks_blocked()


async def do_nothing(_harness: SupervisorHarness) -> None:
    """Do not interfere."""
