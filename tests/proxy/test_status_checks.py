"""The checks of backends for a status document: a limit on those in progress, and no long wait for those that hang."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio
from trio.testing import MockClock

from tests.support.configs import listener_config
from tunnel.config.model import ListenerConfig
from tunnel.errors import TargetError, TargetFault
from tunnel.proxy.health_port import check_listeners
from tunnel.status.backend_health import Check

NAMES = [f"listener-{number}" for number in range(200)]


@dataclass(frozen=True)
class FakeListener:
    """A listener that is configured and nothing else."""

    name: str

    @property
    def config(self) -> ListenerConfig:
        return listener_config(name=self.name)


class FakeScope:
    """All listeners."""

    def listeners(self) -> list[FakeListener]:
        return [FakeListener(name) for name in NAMES]


class Backends:
    """Counts the checks in progress; each takes `seconds`."""

    def __init__(self, seconds: float, error: str = "") -> None:
        self.names: list[str] = []
        self.most = 0
        self._running = 0
        self._seconds = seconds
        self._error = error

    def check_of(self, config: ListenerConfig) -> Check:
        async def check() -> None:
            self.names.append(config.name)
            self._running += 1
            self.most = max(self.most, self._running)
            await trio.sleep(self._seconds)
            self._running -= 1
            if self._error:
                raise TargetError(TargetFault.TIMEOUT, self._error)

        return check


def check(backends: Backends, names: list[str] = NAMES) -> tuple[dict[str, str], float]:
    """The errors, and the seconds that the checks took."""

    async def run() -> tuple[dict[str, str], float]:
        began = trio.current_time()
        errors = await check_listeners(FakeScope(), backends.check_of, names)  # type: ignore[arg-type]
        return errors, trio.current_time() - began

    main: Callable[[], Awaitable[tuple[dict[str, str], float]]] = run
    return trio.run(main, clock=MockClock(autojump_threshold=0))


def test_quick_checks_are_few_at_one_time() -> None:
    backends = Backends(0.001)
    assert check(backends)[0] == {}
    assert (len(backends.names), backends.most) == (200, 16)


def test_targets_that_hang_delay_the_document_by_a_second_at_most() -> None:
    backends = Backends(10, "no answer from the target within 10s")
    errors, seconds = check(backends)
    assert errors == dict.fromkeys(NAMES, "no answer from the target within 10s")
    assert 10 <= seconds < 11


def test_only_the_listeners_of_the_request_are_checked() -> None:
    backends = Backends(0.0)
    check(backends, ["listener-7"])
    assert backends.names == ["listener-7"]
