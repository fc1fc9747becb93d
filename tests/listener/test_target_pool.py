"""Which target gets the next connection, and when a target is healthy."""

from __future__ import annotations

from collections import Counter

import pytest

from tunnel.config.model import HealthCheck
from tunnel.errors import ConfigError, TargetError, TargetFault
from tunnel.listener.route import Route
from tunnel.listener.target_pool import PooledTarget, TargetPlan, TargetPool
from tunnel.net.address import TcpAddress
from tunnel.status.process_state import TargetState

HEALTH = HealthCheck(rise=2, fall=3)


def plan(name: str, priority: int = 0, weight: int = 1) -> TargetPlan:
    return TargetPlan(Route(TcpAddress(name, "1"), f"{name}:1"), priority, weight)


class Pool:
    """A pool with a recorded log."""

    def __init__(self, *plans: TargetPlan) -> None:
        self.lines: list[str] = []
        self.pool = TargetPool(plans, HEALTH, self.lines.append)

    def pick(self, *tried: PooledTarget) -> str:
        target = self.pool.pick(tried)
        return target.route.address.host if target is not None and isinstance(target.route.address, TcpAddress) else ""

    def __getitem__(self, name: str) -> PooledTarget:
        return next(target for target in self.pool.targets if target.route.target_name == f"{name}:1")

    def fail(self, name: str, times: int = HEALTH.fall) -> None:
        for _ in range(times):
            self.pool.note_failure(self[name], "connection refused")

    def succeed(self, name: str, times: int) -> None:
        for _ in range(times):
            self.pool.note_success(self[name])


def test_connections_are_distributed_evenly() -> None:
    pool = Pool(plan("a"), plan("b"), plan("c"))
    for _ in range(5):
        assert {pool.pick() for _ in range(3)} == {"a", "b", "c"}


def test_short_connections_are_distributed_in_turn() -> None:
    pool = Pool(plan("a"), plan("b"))
    picked = []
    for _ in range(6):
        picked.append(pool.pick())
        pool.pool.release(pool[picked[-1]])
    assert "".join(picked) == "ababab"


def test_the_target_with_the_fewest_connections_is_next() -> None:
    pool = Pool(plan("a"), plan("b"))
    for _ in range(6):
        pool.pick()
    pool.pool.release(pool["b"])
    pool.pool.release(pool["b"])
    assert pool.pick() + pool.pick() == "bb"


@pytest.mark.parametrize("is_short", [True, False], ids=["short connections", "long connections"])
def test_weights_are_shares(is_short: bool) -> None:
    pool = Pool(plan("a", weight=3), plan("b", weight=1), plan("c", weight=0))
    picked = Counter[str]()
    for _ in range(401):
        name = pool.pick()
        picked[name] += 1
        if is_short:
            pool.pool.release(pool[name])
    assert abs(picked["a"] - 300) <= 2
    assert abs(picked["b"] - 100) <= 2
    assert picked["c"] <= 2


def test_targets_of_weight_0_alone_share_evenly() -> None:
    pool = Pool(plan("a", weight=0), plan("b", weight=0))
    assert Counter(pool.pick() for _ in range(10)) == {"a": 5, "b": 5}


def test_a_higher_priority_number_is_used_only_if_no_lower_one_is_healthy() -> None:
    pool = Pool(plan("spare", 20), plan("a", 10), plan("b", 10))
    assert {pool.pick() for _ in range(10)} == {"a", "b"}
    pool.fail("a")
    pool.fail("b")
    assert pool.pick() == "spare"
    pool.succeed("a", HEALTH.rise)
    assert pool.pick() == "a"


def test_a_connection_tries_each_target_once_and_unhealthy_ones_last() -> None:
    pool = Pool(plan("a"), plan("b"), plan("c"))
    pool.fail("a")
    tried: list[PooledTarget] = []
    while (target := pool.pool.pick(tried)) is not None:
        tried.append(target)
    assert [target.route.target_name for target in tried] == ["b:1", "c:1", "a:1"]
    assert Pool().pick() == ""


def test_health_changes_after_so_many_results_in_a_row_and_is_logged_once() -> None:
    pool = Pool(plan("a"), plan("b"))
    pool.fail("a", 2)
    pool.succeed("a", 1)
    pool.fail("a", 2)
    assert pool["a"].is_healthy
    assert pool.lines == []
    pool.fail("a", 4)
    assert pool.lines == ["target is unhealthy: a:1 failures=3 error=connection refused"]
    assert {pool.pick() for _ in range(5)} == {"b"}
    pool.succeed("a", 1)
    pool.fail("a", 1)
    pool.succeed("a", 1)
    assert not pool["a"].is_healthy
    pool.succeed("a", 3)
    assert pool["a"].is_healthy
    assert pool.lines[1:] == ["target is healthy again: a:1"]


def test_if_no_target_is_healthy_all_are_used_and_that_is_logged_once() -> None:
    pool = Pool(plan("a"), plan("b"))
    pool.fail("a")
    pool.fail("b")
    pool.fail("a")
    outage = "no target is healthy: new connections try all of them"
    assert pool.lines.count(outage) == 1
    assert {pool.pick() for _ in range(4)} == {"a", "b"}
    pool.succeed("a", 2)
    pool.fail("a")
    assert pool.lines.count(outage) == 2


def test_an_update_keeps_the_targets_that_stay() -> None:
    pool = Pool(plan("a"), plan("b"))
    pool.pick()
    pool.fail("a")
    pool.pool.update([plan("a", 5, 7), plan("c")])
    assert [target.route.target_name for target in pool.pool.targets] == ["a:1", "c:1"]
    assert (pool["a"].opened, pool["a"].is_healthy, pool["a"].priority, pool["a"].weight) == (1, False, 5, 700)


def test_a_removed_target_is_shown_until_its_last_connection_ends() -> None:
    pool = Pool(plan("a"), plan("b"))
    removed = pool["a"]
    pool.pick()
    pool.pool.update([plan("b")])
    assert pool.pick() == "b"
    assert [state.name for state in pool.pool.states()] == ["a:1", "b:1"]
    pool.pool.release(removed)
    assert [state.name for state in pool.pool.states()] == ["b:1"]


def test_a_target_that_returns_keeps_its_connections() -> None:
    pool = Pool(plan("a"), plan("b"))
    pool.pick()
    pool.pool.update([plan("b")])
    pool.pool.update([plan("a"), plan("b")])
    assert pool["a"].opened == 1


def test_the_state_has_connections_failures_and_the_last_error() -> None:
    pool = Pool(plan("a"))
    pool.pick()
    pool.fail("a", 1)
    assert pool.pool.states() == (TargetState("a:1", True, 1, 1, "connection refused"),)
    pool.succeed("a", 1)
    assert pool.pool.states() == (TargetState("a:1", True, 1, 1, ""),)


def test_an_error_that_quotes_a_server_is_shown_on_one_bounded_line() -> None:
    pool = Pool(plan("a"))
    for _ in range(3):
        pool.pool.note_failure(pool["a"], "name-mismatch: \n\x1b[2J" + "x" * 100_000)
    (line, _) = pool.lines
    assert line.isprintable()
    assert len(line) < 10_000
    assert pool["a"].state().error in line


def test_the_only_target_is_as_healthy_as_its_last_attempt_and_nothing_is_logged() -> None:
    pool = Pool(plan("a"))
    target = pool["a"]
    for error, state in (
        (TargetError(TargetFault.REFUSED, "refused"), TargetState("a:1", False, 0, 1, "refused")),
        (TargetError(TargetFault.EXHAUSTED, "too many open files"), TargetState("a:1", False, 0, 1, "refused")),
        (None, TargetState("a:1", True, 0, 1, "")),
        (ConfigError("a check cannot be made"), TargetState("a:1", False, 0, 2, "a check cannot be made")),
    ):
        pool.pool.note_result(target, error)
        assert pool.pool.states() == (state,)
    assert pool.lines == []
    assert pool.pool.failures == {"a:1": 2}
