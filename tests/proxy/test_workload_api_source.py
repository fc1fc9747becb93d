"""Updates are used as a whole or not at all, and of several pending updates only the newest."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.recorded_log import RecordedLog
from tunnel.config.dev_model import Entry
from tunnel.config.model import Revocation, WorkloadApi
from tunnel.devapi.api import DevWorkloadApi
from tunnel.errors import IdentityError, IdentityFault, TunnelError
from tunnel.identity.credentials import Credentials, SvidCredentials, X509Context
from tunnel.identity.event_channel import WorkloadStreams, receive_newest
from tunnel.identity.events import Denied, Disconnected, Rejected, Updated, WorkloadEvent
from tunnel.lazy_dataclass import replace
from tunnel.proxy.workload_api_source import WorkloadApiSource
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import SpiffeId, parse_spiffe_id
from tunnel.spiffe.selection import Selection
from tunnel.status.counters import WorkloadApiState

SOURCE = WorkloadApi(WorkloadEndpoint(path="/nowhere/agent.sock"))


class RefusingSink:
    """A sink that can use no credentials."""

    async def use(self, number: int, credentials: Credentials) -> None:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, "OpenSSL cannot present this")

    def confirm(self) -> None:
        raise AssertionError

    def withdraw(self) -> None:
        raise AssertionError

    def __init__(self) -> None:
        self.states: list[WorkloadApiState] = []

    def show_workload_api(self, state: WorkloadApiState) -> None:
        self.states.append(state)

    def fail(self, error: TunnelError) -> None:
        raise error


class RecordingSink(RefusingSink):
    """A sink that records the SPIFFE ID of the credentials."""

    def __init__(self) -> None:
        super().__init__()
        self.used: SpiffeId | None = None
        self.is_used = trio.Event()

    async def use(self, number: int, credentials: Credentials) -> None:
        assert isinstance(credentials, SvidCredentials)
        self.used = credentials.svid.spiffe_id
        self.is_used.set()


@pytest.fixture
def lines() -> RecordedLog:
    return RecordedLog()


@pytest.fixture
def source(lines: RecordedLog) -> WorkloadApiSource:
    return WorkloadApiSource(SOURCE, Revocation(), RefusingSink(), lines)


def update(number: int) -> Updated:
    return Updated(X509Context(None, BundleSet({}), notes=(str(number),)), is_new=True)


def test_what_cannot_be_presented_is_not_used_and_what_is_in_use_stays(source: WorkloadApiSource, lines: RecordedLog) -> None:
    trio.run(source._use, SvidCredentials(None, BundleSet({})), 1)  # type: ignore[arg-type]  # the SVID, which is not used here
    assert lines.kept == [
        "identity update unusable: bad-certificate: OpenSSL cannot present this; keeping the previous identity"
    ]
    assert not source._ready.is_set()


def test_of_a_storm_of_updates_the_newest_counts_and_nothing_else_is_passed_over(
    source: WorkloadApiSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[WorkloadEvent] = []

    async def apply(event: WorkloadEvent) -> None:
        applied.append(event)

    monkeypatch.setattr(source, "_apply", apply)
    denied = Denied("PERMISSION_DENIED", "no identity issued", 1.0)
    updates = [update(number) for number in range(6)]

    async def storm() -> None:
        send, receive = trio.open_memory_channel[WorkloadEvent](math.inf)
        for event in (*updates[:4], denied, *updates[4:]):
            send.send_nowait(event)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source._follow, receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(storm)
    assert applied == [updates[3], denied, updates[5]]


def test_an_update_that_an_equal_one_follows_at_once_is_still_a_new_one() -> None:
    """Our SVID was renewed, then another SVID, which does not concern us."""
    new, equal = update(1), replace(update(1), is_new=False)

    async def receive(*events: WorkloadEvent) -> list[WorkloadEvent]:
        send, channel = trio.open_memory_channel[WorkloadEvent](math.inf)
        for event in events:
            send.send_nowait(event)
        return await receive_newest(channel)

    assert trio.run(receive, new, equal) == [new]
    assert trio.run(receive, equal, equal) == [equal]


def test_two_sources_of_one_address_share_its_stream(tmp_path: Path, lines: RecordedLog) -> None:
    endpoint = WorkloadEndpoint(path=str(tmp_path / "api.sock"))
    ids = [parse_spiffe_id(f"spiffe://a.test/{name}") for name in "xy"]
    streams = WorkloadStreams()
    sinks = [RecordingSink() for _ in ids]
    sources = [
        WorkloadApiSource(WorkloadApi(endpoint, selection=Selection(spiffe_id)), Revocation(), sink, lines, streams)
        for spiffe_id, sink in zip(ids, sinks, strict=True)
    ]

    async def run_both(api: DevWorkloadApi) -> None:
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(source.run)
            with trio.fail_after(60):
                for sink in sinks:
                    await sink.is_used.wait()
            assert api.stream_count(endpoint) == 1
            nursery.cancel_scope.cancel()

    with DevWorkloadApi({endpoint: [Entry(spiffe_id) for spiffe_id in ids]}) as api:
        trio.run(run_both, api)
    assert [sink.used for sink in sinks] == ids


def test_the_state_of_the_workload_api_is_shown_after_each_event(lines: RecordedLog) -> None:
    sink = RefusingSink()
    source = WorkloadApiSource(SOURCE, Revocation(), sink, lines)
    trio.run(source._apply, Rejected(IdentityError(IdentityFault.NO_SVID, "the update holds no SVID")))
    trio.run(source._apply, Disconnected("UNAVAILABLE", "no such file", 1.0))
    first, second = sink.states
    assert (first.rejected, first.updates, first.last_update) == (1, 0, None)
    assert "the update holds no SVID" in first.error
    assert (second.rejected, second.error) == (1, "Workload API unavailable (UNAVAILABLE: no such file)")


def test_failed_streams_are_counted_by_the_code_of_their_status(lines: RecordedLog) -> None:
    sink = RecordingSink()
    source = WorkloadApiSource(SOURCE, Revocation(), sink, lines)
    codes = ("UNAVAILABLE", "OK", "UNAVAILABLE", "INTERNAL")
    for code in codes:
        trio.run(source._apply, Disconnected(code, "", 1.0))
    assert sink.states[-1].errors == {"UNAVAILABLE": 2, "INTERNAL": 1}
    assert sink.states[0].errors == {"UNAVAILABLE": 1}, "a state that was published does not change"
