"""What ends a service or a single connection, and with which exit code; signals of this process, and a clock that jumps."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.recorded_log import RecordedLog
from tunnel.errors import ConfigError, TunnelError
from tunnel.proxy import stdio_task
from tunnel.proxy.reload_request import ReloadRequest
from tunnel.proxy.service_task import ServiceTask
from tunnel.proxy.stdio_task import StdioTask
from tunnel.proxy.supervisor import ForegroundTask, Supervisor
from tunnel.status.counters import Counters

TERM, INT, HUP, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
BROKEN = ConfigError("broken")
Script = Callable[["FakeProxy"], Awaitable[object]]


class FakeProxy:
    """A proxy whose connections end after `carries` seconds; it listens when the script says so."""

    def __init__(self, *, carries: float = 0.0, delay: float = 0.0) -> None:
        self.config = SimpleNamespace(timed_reload=0.0, shutdown_delay=delay, shutdown_timeout=30.0)
        self.log = RecordedLog()
        self.data_plane = SimpleNamespace(exit_with_parent=lambda: None)
        self.stop_requested = trio.Event()
        self.is_listening = trio.Event()
        self.reload_request = ReloadRequest()
        self.reload_subject = "TLS configuration"
        self.reloads = 0
        self.tunnel = SimpleNamespace(counters=Counters(), serve_socket=self._serve)
        self.listeners = {"client": SimpleNamespace(tunnel=self.tunnel)}
        self.served: list[object] = []
        self.drained_at: float | None = None
        self._carries = carries
        self._failed = trio.Event()
        self._failure: TunnelError | None = None

    async def run(self) -> None:
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    def fail(self, error: TunnelError) -> None:
        self._failure = error
        self._failed.set()

    def request_reload(self) -> None:
        self.reloads += 1

    async def delay_shutdown(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def sleep_and_confirm(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def drain(self, limit: float) -> int:
        self.drained_at = trio.current_time()
        await trio.sleep(min(limit, self._carries))
        return int(self._carries > limit)

    def _serve(self, sock: object) -> None:
        self.served.append(sock)


def supervise(proxy: FakeProxy, task: ForegroundTask, script: Script) -> int:
    """Run a task beside a script; the exit code. Raises the failure of the task."""
    context: Any = SimpleNamespace(
        notifier=SimpleNamespace(run_watchdog=lambda sleep: sleep(0)),
        log_capture=SimpleNamespace(drain=lambda _write: None),
        access_log=None,
    )
    supervisor = Supervisor(proxy, task, context, proxy.log)  # type: ignore[arg-type]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(script, proxy)
            await supervisor.run()
            nursery.cancel_scope.cancel()

    try:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.005))
    except BaseExceptionGroup as group:
        (error,) = group.exceptions  # of the nursery here
        raise error from None
    return supervisor.exit_code


async def receive(number: int) -> None:
    """Get a signal, and let the task process it."""
    await trio.testing.wait_all_tasks_blocked()
    signal.raise_signal(number)
    await trio.testing.wait_all_tasks_blocked()


# -- a service


def serve(proxy: FakeProxy, script: Script) -> int:
    return supervise(proxy, ServiceTask(proxy, proxy.log), script)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("is_listening", [False, True])
def test_a_signal_stops_a_service_which_then_drains(number: int, is_listening: bool) -> None:
    async def script(proxy: FakeProxy) -> None:
        if is_listening:
            proxy.is_listening.set()
        await receive(number)

    proxy = FakeProxy(carries=20, delay=5)
    assert serve(proxy, script) == 0
    assert proxy.drained_at == pytest.approx(5)


def test_a_service_that_cuts_connections_at_the_end_of_the_drain_has_exit_code_1() -> None:
    async def script(proxy: FakeProxy) -> None:
        await receive(TERM)

    assert serve(FakeProxy(carries=31), script) == 1


def test_the_time_limits_of_a_stop_are_those_of_the_last_reload() -> None:
    async def script(proxy: FakeProxy) -> None:
        proxy.config = SimpleNamespace(timed_reload=0.0, shutdown_delay=7.0, shutdown_timeout=1.0)
        await receive(TERM)

    proxy = FakeProxy(carries=2)
    assert serve(proxy, script) == 1
    assert proxy.drained_at == pytest.approx(7)


def test_a_request_at_the_status_port_stops_a_service_like_a_signal() -> None:
    async def script(proxy: FakeProxy) -> None:
        proxy.stop_requested.set()

    proxy = FakeProxy(carries=1)
    assert serve(proxy, script) == 0
    assert proxy.drained_at is not None


@pytest.mark.parametrize("number", [HUP, USR1])
def test_a_reload_signal_reloads_until_the_stop(number: int) -> None:
    async def script(proxy: FakeProxy) -> None:
        for _ in range(2):
            await receive(number)
        await receive(TERM)
        await receive(number)

    proxy = FakeProxy(carries=20)
    assert serve(proxy, script) == 0
    assert proxy.reloads == 2
    assert proxy.log.kept[-1].endswith("ignored while shutting down")


def test_a_second_stop_signal_has_its_default_action_in_the_drain() -> None:
    actions: list[object] = []

    async def script(proxy: FakeProxy) -> None:
        before = signal.getsignal(TERM)
        await receive(TERM)
        actions.append(signal.getsignal(TERM) is not before)
        actions.append(signal.getsignal(TERM))
        actions.append(signal.getsignal(INT))

    assert serve(FakeProxy(carries=20), script) == 0
    assert actions == [True, signal.SIG_DFL, signal.SIG_DFL]


@pytest.mark.parametrize("when", ["before it listens", "while it serves", "in the delay", "in the drain"])
def test_a_proxy_that_fails_ends_a_service_at_once_with_its_error(when: str) -> None:
    async def script(proxy: FakeProxy) -> None:
        if when != "before it listens":
            proxy.is_listening.set()
        if when.startswith("in"):
            await receive(TERM)
        await trio.sleep(2 if when == "in the drain" else 0)
        proxy.fail(BROKEN)

    proxy = FakeProxy(carries=20, delay=1)
    with pytest.raises(ConfigError, match="broken"):
        serve(proxy, script)
    assert (proxy.drained_at is not None) is (when == "in the drain")


def test_a_proxy_that_fails_after_the_drain_does_not_change_the_exit_code() -> None:
    async def script(proxy: FakeProxy) -> None:
        await receive(TERM)
        await trio.sleep(3)
        proxy.fail(BROKEN)

    proxy = FakeProxy(carries=1)
    assert serve(proxy, script) == 0


# -- one connection


class FakeStreams:
    """Standard input and output."""

    def __init__(self, report_end: Callable[[], None]) -> None:
        self.report_end = report_end
        self.inner = object()
        self.is_broken, self.fault = False, ""
        self.is_started = self.has_ended_input = False

    def start(self) -> None:
        self.is_started = True

    def end_input(self) -> None:
        self.has_ended_input = True


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeProxy, StdioTask, FakeStreams, list[float]]:
    """A proxy, the task with one connection, its streams, and when it was said that it waits."""
    monkeypatch.setattr(stdio_task, "StandardStreams", FakeStreams)
    proxy, notices = FakeProxy(), []
    task = StdioTask(proxy, lambda: notices.append(trio.current_time()))  # type: ignore[arg-type]
    return proxy, task, task._streams, notices  # type: ignore[return-value]


Connection = tuple[FakeProxy, StdioTask, FakeStreams, list[float]]


@pytest.mark.parametrize(
    ("counted", "streams", "code"),
    [
        ({"relayed": 1}, {}, 0),
        ({}, {}, 1),
        ({"relayed": 1, "truncated": 1}, {}, 1),
        ({"relayed": 1, "other_ends": {"reset": 1}}, {}, 1),
        ({"relayed": 1}, {"fault": "no space left"}, 1),
        ({"relayed": 1, "truncated": 1}, {"is_broken": True}, 0),
    ],
)
def test_the_exit_code_of_one_connection_is_0_if_its_output_is_complete(
    connection: Connection, counted: dict[str, Any], streams: dict[str, Any], code: int
) -> None:
    proxy, task, given, notices = connection

    async def script(proxy: FakeProxy) -> None:
        proxy.is_listening.set()
        await trio.testing.wait_all_tasks_blocked()
        assert given.is_started
        assert proxy.served == [given.inner]
        for name, value in counted.items():
            setattr(proxy.tunnel.counters, name, value)
        for name, value in streams.items():
            setattr(given, name, value)
        given.report_end()

    assert supervise(proxy, task, script) == code
    assert given.has_ended_input
    assert proxy.drained_at is not None
    assert notices == []


def test_a_wait_for_the_identity_is_said_once(connection: Connection) -> None:
    proxy, task, given, notices = connection

    async def script(proxy: FakeProxy) -> None:
        await trio.sleep(30)
        proxy.is_listening.set()
        await trio.testing.wait_all_tasks_blocked()
        given.report_end()

    assert supervise(proxy, task, script) == 1
    assert notices == [pytest.approx(2)]


@pytest.mark.parametrize("is_listening", [False, True])
def test_a_proxy_that_fails_ends_one_connection_with_its_error(connection: Connection, is_listening: bool) -> None:
    proxy, task, _, _ = connection

    async def script(proxy: FakeProxy) -> None:
        if is_listening:
            proxy.is_listening.set()
        await trio.testing.wait_all_tasks_blocked()
        proxy.fail(BROKEN)

    with pytest.raises(ConfigError, match="broken"):
        supervise(proxy, task, script)
    assert task.exit_code == 1
