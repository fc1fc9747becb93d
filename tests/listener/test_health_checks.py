"""Active health checks of a listener with several targets."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from tests.support.configs import listener_config
from tests.support.tunnel_harness import Harnesses, TunnelHarness, generation
from tunnel.config.model import HealthCheck
from tunnel.errors import TargetError, TargetFault
from tunnel.listener import health_checks
from tunnel.listener.health_checks import TargetChecks, check_any, check_targets, run_health_checks
from tunnel.listener.route import Route
from tunnel.net.address import TcpAddress

HEALTH = HealthCheck(interval=4.0, timeout=1.0, rise=2, fall=2)


class Backends:
    """Addresses that accept connections, or refuse them."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def open(self, *, is_listening: bool = True) -> TcpAddress:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        if is_listening:
            sock.listen(8)
        self._sockets.append(sock)
        return TcpAddress("127.0.0.1", str(sock.getsockname()[1]))

    def stop(self, n: int) -> None:
        """Refuse connections, and keep the address."""
        address = self._sockets[n].getsockname()
        self._sockets[n].close()
        self._sockets[n] = socket.socket()
        self._sockets[n].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sockets[n].bind(address)

    def start(self, n: int) -> None:
        self._sockets[n].listen(8)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def backends() -> Iterator[Backends]:
    made = Backends()
    yield made
    made.close()


def healthy(harness: TunnelHarness) -> list[bool]:
    return [state.is_healthy for state in harness.tunnel.targets.states()]


def test_targets_become_unhealthy_and_healthy_by_their_checks(harnesses: Harnesses, backends: Backends) -> None:
    harness = harnesses(targets=(backends.open(), backends.open()), health_check=HEALTH)
    checks = TargetChecks(harness.tunnel, 20)

    async def main() -> None:
        await check_targets(harness.tunnel, checks)
        assert healthy(harness) == [True, True]
        backends.stop(1)
        for _ in range(2):
            await check_targets(harness.tunnel, checks)
        assert healthy(harness) == [True, False]
        backends.start(1)
        for _ in range(2):
            await check_targets(harness.tunnel, checks, only_unhealthy=True)
        assert healthy(harness) == [True, True]

    trio.run(main)
    assert [line.partition(": ")[0] for line in harness.log.lines] == ["target is unhealthy", "target is healthy again"]


class CountedChecks:
    """Checks that succeed, except those of the named targets."""

    def __init__(self) -> None:
        self.made: list[tuple[float, str]] = []
        self.failing: set[str] = set()

    def build(self, _tunnel: object, _limit: float, route: Route) -> Callable[[], Awaitable[None]]:
        async def check() -> None:
            await trio.lowlevel.checkpoint()
            self.made.append((trio.current_time(), route.target_name))
            if route.target_name in self.failing:
                raise TargetError(TargetFault.TIMEOUT, "no answer")

        return check


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> CountedChecks:
    made = CountedChecks()
    monkeypatch.setattr(health_checks, "build_check", made.build)
    monkeypatch.setattr(health_checks, "random", lambda: 0.0)
    return made


def run_for(seconds: float, harness: TunnelHarness) -> None:
    """Run the checks on a clock that jumps."""

    async def main() -> None:
        with trio.move_on_after(seconds):
            await run_health_checks(harness.tunnel)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def with_targets(harnesses: Harnesses, *names: str, **health: float) -> TunnelHarness:
    fields = {"interval": 4.0, "fall": 2, "rise": 2} | health
    targets = tuple(TcpAddress(name, "1") for name in names)
    harness = harnesses(targets=targets, health_check=HealthCheck(**fields))  # type: ignore[arg-type]
    harness.tunnel.swap(generation())
    return harness


def test_each_target_is_checked_at_intervals(harnesses: Harnesses, counted: CountedChecks) -> None:
    run_for(13, with_targets(harnesses, "a", "b"))
    assert len(counted.made) == 6
    assert {round(when - counted.made[0][0]) for when, _ in counted.made} == {0, 4, 8}


def test_without_an_interval_only_unhealthy_targets_are_checked(harnesses: Harnesses, counted: CountedChecks) -> None:
    harness = with_targets(harnesses, "a", "b", interval=0)
    run_for(20, harness)
    assert counted.made == []
    for _ in range(2):
        harness.tunnel.targets.pool.note_failure(harness.tunnel.targets.pool.targets[0], "connection refused")
    run_for(11, harness)
    assert [name for _, name in counted.made] == ["a:1", "a:1"]
    assert healthy(harness) == [True, True]


def test_one_target_has_no_checks(harnesses: Harnesses, counted: CountedChecks) -> None:
    run_for(20, with_targets(harnesses, "a"))
    assert counted.made == []


def test_another_configuration_is_used_from_the_next_check_on(harnesses: Harnesses, counted: CountedChecks) -> None:
    harness = with_targets(harnesses, "a", "b")
    run_for(5, harness)
    harness.tunnel.config = listener_config(targets=(TcpAddress("b", "1"), TcpAddress("c", "1")))
    harness.tunnel.targets.use(harness.tunnel.config)
    counted.made.clear()
    run_for(6, harness)
    assert sorted(name for _, name in counted.made) == ["b:1", "c:1"]


@pytest.mark.parametrize(("failing", "is_healthy"), [(set(), True), ({"a:1"}, True), ({"a:1", "b:1"}, False)])
def test_a_listener_is_healthy_if_one_of_its_targets_is(
    harnesses: Harnesses, counted: CountedChecks, failing: set[str], is_healthy: bool
) -> None:
    counted.failing = failing
    check = check_any(with_targets(harnesses, "a", "b").tunnel)
    if is_healthy:
        trio.run(check)
    else:
        with pytest.raises(TargetError, match="no answer"):
            trio.run(check)
