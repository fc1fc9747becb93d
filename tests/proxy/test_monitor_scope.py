"""What status ports and metric reports are about: the listeners of their scope, those of the moment."""

from __future__ import annotations

from typing import Any

from tests.support.configs import listener_config
from tests.support.tunnel_harness import Harnesses, generation
from tunnel.config.model import Plaintext
from tunnel.net.notify import Notifier
from tunnel.proxy.monitor_scope import MonitorScope
from tunnel.proxy.state_reporter import StateReporter
from tunnel.status.counters import Counters
from tunnel.status.process_state import PlaintextState


class FakeFeed:
    """An identity source that has counted nothing."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.problem = ""


class FakeListener:
    """A listener with the tunnel of a harness."""

    def __init__(self, harnesses: Harnesses, name: str, *, has_identity: bool = True, **fields: Any) -> None:
        self.name = name
        self.config = listener_config(name=name, **fields)
        self.tunnel = harnesses(**fields).tunnel
        if has_identity:
            self.tunnel.swap(generation())


class FakeProcess:
    """A process with these listeners."""

    def __init__(self, *listeners: FakeListener) -> None:
        self.counters = Counters()
        self.listeners = {one.name: one for one in listeners}
        self.retired: list[FakeListener] = []
        self.feeds = {one.config.identity: FakeFeed() for one in listeners}
        self.state_reporter = StateReporter([one.config for one in listeners], Notifier({}, 1))


def scope_of(process: FakeProcess, *names: str) -> MonitorScope:
    return MonitorScope(process, names)  # type: ignore[arg-type]


def test_the_sum_is_of_all_listeners_and_each_is_measured_on_its_own(harnesses: Harnesses) -> None:
    process = FakeProcess(FakeListener(harnesses, "redis"), FakeListener(harnesses, "cache"))
    process.listeners["redis"].tunnel.counters.accepted = 2
    process.listeners["cache"].tunnel.counters.accepted = 3
    process.listeners["cache"].tunnel.counters.forwarded = 7
    measured = scope_of(process).measure()
    assert (measured.counters.accepted, measured.gauges.forwarded) == (5, 7)
    assert [(one.name, one.counters.accepted, one.gauges.forwarded) for one in measured.listeners] == [
        *(("redis", 2, 0), ("cache", 3, 7)),
    ]
    assert [len(one.targets) for one in measured.listeners] == [1, 1]


def test_a_scope_with_names_is_about_these_listeners_only(harnesses: Harnesses) -> None:
    process = FakeProcess(FakeListener(harnesses, "redis"), FakeListener(harnesses, "cache"))
    process.listeners["redis"].tunnel.counters.accepted = 2
    process.listeners["cache"].tunnel.counters.accepted = 3
    measured = scope_of(process, "cache").measure()
    assert (measured.counters.accepted, [one.name for one in measured.listeners]) == (3, ["cache"])


def test_a_removed_listener_is_in_the_sum_only(harnesses: Harnesses) -> None:
    process = FakeProcess(FakeListener(harnesses, "redis"), FakeListener(harnesses, "cache"))
    process.retired.append(process.listeners.pop("redis"))
    process.retired[0].tunnel.counters.accepted = 2
    process.retired[0].tunnel.counters.returned = 9
    measured = scope_of(process).measure()
    assert (measured.counters.accepted, measured.gauges.returned) == (2, 9)
    assert [one.name for one in measured.listeners] == ["cache"]


def test_the_state_has_what_each_connection_changes(harnesses: Harnesses) -> None:
    process = FakeProcess(FakeListener(harnesses, "redis"), FakeListener(harnesses, "cache", plaintext=Plaintext()))
    redis, cache = scope_of(process).state().listeners
    assert (redis.opened, [target.is_healthy for target in redis.targets], redis.plaintext) == (0, [True], None)
    assert cache.plaintext == PlaintextState(0, 0, (), 0)
    assert [one.name for one in scope_of(process, "cache").state().listeners] == ["cache"]


def test_before_the_first_identity_the_state_has_the_problem_of_its_source(harnesses: Harnesses) -> None:
    process = FakeProcess(FakeListener(harnesses, "redis", has_identity=False))
    (redis,) = scope_of(process).state().listeners
    assert redis.identity_error == "no identity yet"
    (feed,) = process.feeds.values()
    feed.problem = "no such socket"
    (redis,) = scope_of(process).state().listeners
    assert redis.identity_error == "no identity yet: no such socket"
    assert process.state_reporter.state.identity_error == "", "an identity that was never there is not reported as lost"
