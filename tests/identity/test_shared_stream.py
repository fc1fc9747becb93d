"""One stream of the Workload API client with several subscribers: each one has its own updates, problems and delays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.cert_factory import END, NOW, START
from tests.support.processes import eventually
from tests.support.scripted_agent import BAD, SILENCE, Scripted, Wall, entry_of, message_of
from tests.support.stream_watch import FastBackoff, Subscriber, watching
from tunnel.config.dev_model import Entry
from tunnel.devapi.api import SVIDS, DevWorkloadApi
from tunnel.devapi.publisher import Refusal
from tunnel.errors import IdentityFault
from tunnel.identity.events import Denied, Disconnected, FatalError, Overdue, Rejected, Updated
from tunnel.lazy_dataclass import replace
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.selection import Selection

X_ID, Y_ID = parse_spiffe_id("spiffe://a.test/x"), parse_spiffe_id("spiffe://a.test/y")
X, Y = Selection(X_ID), Selection(Y_ID)
X_ENTRY, Y_ENTRY = entry_of("x"), entry_of("y")
BOTH = message_of(X_ENTRY, Y_ENTRY)
BAD_Y = message_of(X_ENTRY, replace(Y_ENTRY, x509_svid_key=b""))
LONG = 3600.0  # seconds: a delay that never ends in a test


@pytest.fixture
def endpoint(tmp_path: Path) -> WorkloadEndpoint:
    return WorkloadEndpoint(path=str(tmp_path / "api.sock"))


@pytest.fixture
def api(endpoint: WorkloadEndpoint) -> Iterator[DevWorkloadApi]:
    with DevWorkloadApi({endpoint: [Entry(X_ID), Entry(Y_ID)]}) as api:
        yield api


def selected(event: Updated) -> str:
    """The path of the SVID of an update."""
    assert event.context.svid is not None
    return event.context.svid.spiffe_id.path


def test_two_selections_share_one_stream_and_each_gets_its_svid(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint, selection=X) as x:
        y = Subscriber(x.stream, Y)
        assert (selected(x.updated()), selected(y.updated())) == ("/x", "/y")
        api.rotate_svids()
        assert (selected(x.updated()), selected(y.updated())) == ("/x", "/y")
        assert api.stream_count(endpoint) == 1


def test_a_late_subscriber_gets_the_newest_update_of_the_open_stream(endpoint: WorkloadEndpoint) -> None:
    with Scripted(endpoint, BOTH) as agent, watching(endpoint, selection=X, wall=Wall()) as x:
        x.updated()
        y = Subscriber(x.stream, Y)
        assert selected(y.updated()) == "/y"
        assert x.is_silent()
        assert agent.opened == 1


def test_a_late_subscriber_gets_the_rejection_of_the_newest_message(endpoint: WorkloadEndpoint) -> None:
    with Scripted(endpoint, b"\xff\xff\xff") as agent, watching(endpoint, backoff=FastBackoff(LONG)) as first:
        assert isinstance(first.next(), Rejected)
        late = Subscriber(first.stream)
        rejected = late.next()
        assert isinstance(rejected, Rejected)
        assert rejected.error.reason is IdentityFault.BAD_MESSAGE
        eventually(lambda: agent.opened > 1, "the late one has asked for a new stream")


def test_a_subscriber_that_joins_before_the_first_message_waits_for_it(endpoint: WorkloadEndpoint) -> None:
    now = [0.0]
    with (
        Scripted(endpoint, SILENCE, BOTH) as agent,
        watching(endpoint, selection=X, wall=Wall(), clock=lambda: now[0], check_interval=0.01) as x,
    ):
        eventually(lambda: agent.opened == 1, "a stream is open")
        y = Subscriber(x.stream, Y)
        now[0] += 15.0
        assert type(y.next()) is type(x.next()) is Disconnected
        assert selected(y.updated()) == "/y"


def test_a_subscriber_that_joins_during_an_outage_gets_the_newest_update_and_an_attempt_at_once(
    endpoint: WorkloadEndpoint,
) -> None:
    with watching(endpoint, selection=X, wall=Wall(), backoff=FastBackoff(LONG)) as x:
        assert type(x.next()) is Disconnected
        with Scripted(endpoint, BOTH):
            y = Subscriber(x.stream, Y)
            assert (selected(y.updated()), selected(x.updated())) == ("/y", "/x")
            y.leave()
        assert x.until(Disconnected).delay == LONG
        late = Subscriber(x.stream, Y)
        assert selected(late.updated()) == "/y"
        assert type(late.next()) is type(x.next()) is Disconnected


def test_a_subscriber_that_joins_after_a_denial_does_not_get_the_update_before_it(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint
) -> None:
    with watching(endpoint, backoff=FastBackoff(LONG)) as first:
        first.updated()
        api.withdraw(endpoint)
        assert type(first.next()) is Denied
        late = Subscriber(first.stream)
        assert type(late.next()) is Denied


def test_a_subscriber_that_has_left_gets_no_event(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint) as first:
        first.updated()
        other = Subscriber(first.stream)
        other.updated()
        other.leave()
        api.rotate_svids()
        first.updated()
        assert other.is_silent()
        assert not first.stream.is_unused
        first.leave()
        assert first.stream.is_unused


def test_a_rejected_update_of_one_opens_new_streams_until_that_one_leaves(endpoint: WorkloadEndpoint) -> None:
    now = [0.0]
    with (
        Scripted(endpoint, BAD_Y) as agent,
        watching(endpoint, selection=X, wall=Wall(), clock=lambda: now[0], check_interval=0.01) as x,
    ):
        y = Subscriber(x.stream, Y)
        x.updated()
        assert isinstance(y.next(), Rejected)
        for opened in (2, 3, 4):
            eventually(lambda n=opened: len(y.backoff.asked) == 2 * n - 3, "both have evaluated the update")
            now[0] += 1.0
            x.updated(is_new=False)
            assert agent.opened == opened
        assert y.is_silent(), "the same rejection again is no event"
        assert (y.backoff.resets, set(y.backoff.asked)) == (0, {(1.0, 5.0)}), "its delays grow although the other is served"
        assert x.backoff.asked == []
        y.leave()
        now[0] += LONG
        for _ in range(2):
            Subscriber(x.stream, X).updated()  # so the thread has seen the clock
        again = Subscriber(x.stream, Y)
        assert isinstance(again.next(), Rejected)
        now[0] += 1.0
        x.updated(is_new=False)
        assert agent.opened == 5


def test_a_rejected_update_of_one_becomes_valid_without_a_new_stream(endpoint: WorkloadEndpoint) -> None:
    early = entry_of("y", start=NOW + timedelta(seconds=40))
    wall = Wall()
    with (
        Scripted(endpoint, message_of(X_ENTRY, early)) as agent,
        watching(endpoint, selection=Y, wall=wall, check_interval=0.01, backoff=FastBackoff(LONG)) as y,
    ):
        x = Subscriber(y.stream, X)
        x.updated()
        assert isinstance(y.next(), Rejected)
        wall.now = NOW + timedelta(seconds=40)
        assert selected(y.updated()) == "/y"
        assert x.is_silent()
        assert agent.opened == 1


def test_an_overdue_rotation_of_one_is_its_event_only(endpoint: WorkloadEndpoint) -> None:
    lasting = entry_of("y", end=END + timedelta(hours=3))
    wall = Wall()
    with (
        Scripted(endpoint, message_of(X_ENTRY, lasting)) as agent,
        watching(endpoint, selection=X, wall=wall, check_interval=0.01) as x,
    ):
        y = Subscriber(x.stream, Y)
        x.updated()
        y.updated()
        wall.now = START + 0.75 * (END - START)
        overdue = x.next()
        assert isinstance(overdue, Overdue)
        assert overdue.svid.spiffe_id == X_ID
        x.updated(is_new=False)
        y.updated(is_new=False)
        assert agent.opened == 2


def test_the_shortest_delay_counts_after_the_end_of_a_stream(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint, selection=X, backoff=FastBackoff(LONG)) as x:
        y = Subscriber(x.stream, Y)
        x.updated()
        y.updated()
        api.end_streams(endpoint)
        assert x.next() == y.next() == Disconnected("OK", "", 0.01)
        x.updated(is_new=False)
        y.updated(is_new=False)
        assert api.stream_count(endpoint) == 1


@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "INVALID_ARGUMENT"])
def test_an_answer_that_a_retry_cannot_change_is_fatal_for_all_subscribers_and_for_later_ones(
    code: str, api: DevWorkloadApi, endpoint: WorkloadEndpoint
) -> None:
    api.publish(endpoint, SVIDS, Refusal(code, "no"))
    with watching(endpoint, selection=X) as x:
        y = Subscriber(x.stream, Y)
        first = x.next()
        assert isinstance(first, FatalError)
        assert y.next() == first
        assert x.stream.has_failed
        assert Subscriber(x.stream, X).next() == first
        assert x.stream.is_unused


def test_no_answer_is_fatal_while_one_subscriber_has_an_identity(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    api.publish(endpoint, SVIDS, BAD_Y)
    with watching(endpoint, selection=X, wall=Wall()) as x:
        y = Subscriber(x.stream, Y)
        x.updated()
        assert isinstance(y.next(), Rejected)
        api.publish(endpoint, SVIDS, Refusal("UNIMPLEMENTED", "no"))
        assert type(y.next()) is type(x.until(Disconnected)) is Disconnected
        api.publish(endpoint, SVIDS, BOTH)
        assert selected(y.until(Updated)) == "/y"


def test_a_bug_in_the_evaluation_of_one_is_fatal_for_that_one(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watching(endpoint, selection=X) as x:
        y = Subscriber(x.stream, Y)
        x.updated()
        y.updated()
        monkeypatch.setattr(y.subscription, "take", lambda _update: 1 / 0)
        for _ in range(2):
            api.rotate_svids()
            assert selected(x.updated()) == "/x"
        failure = y.next()
        assert isinstance(failure, FatalError)
        assert failure.error.reason is IdentityFault.CRASHED
        assert y.is_silent()
        assert not x.stream.has_failed


def test_a_stream_that_nothing_uses_stops(endpoint: WorkloadEndpoint) -> None:
    with Scripted(endpoint, BAD), watching(endpoint, wall=Wall()) as only:
        only.leave()
    assert not only.stream._thread.is_alive()
