"""The streams of a process: opened by the first subscriber of an address, closed by the last one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.processes import eventually
from tunnel.config.dev_model import Entry
from tunnel.devapi.api import SVIDS, DevWorkloadApi
from tunnel.devapi.publisher import Refusal
from tunnel.identity.event_channel import EventChannel, WorkloadStreams, receive_newest
from tunnel.identity.events import FatalError, Updated
from tunnel.identity.workload import WorkloadStream
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.selection import Selection

X_ID, Y_ID = parse_spiffe_id("spiffe://a.test/x"), parse_spiffe_id("spiffe://a.test/y")
X, Y = Selection(X_ID), Selection(Y_ID)
LIMIT = 60.0  # of every wait: generous, and never reached when things work


@pytest.fixture
def endpoint(tmp_path: Path) -> WorkloadEndpoint:
    return WorkloadEndpoint(path=str(tmp_path / "api.sock"))


@pytest.fixture
def api(endpoint: WorkloadEndpoint, other: WorkloadEndpoint) -> Iterator[DevWorkloadApi]:
    entries = [Entry(X_ID), Entry(Y_ID)]
    with DevWorkloadApi({endpoint: entries, other: entries}) as api:
        yield api


@pytest.fixture
def other(tmp_path: Path) -> WorkloadEndpoint:
    return WorkloadEndpoint(path=str(tmp_path / "other.sock"))


@pytest.fixture
def streams() -> WorkloadStreams:
    return WorkloadStreams()


async def path_of(events: EventChannel) -> str:
    """The path of the SVID in the next event, which must be an update."""
    with trio.fail_after(LIMIT):
        event = await events.receive()
    assert isinstance(event, Updated)
    assert event.context.svid is not None
    return event.context.svid.spiffe_id.path


def test_an_address_has_one_stream_from_the_first_subscriber_to_the_last(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint, streams: WorkloadStreams
) -> None:
    async def subscribe() -> None:
        async with streams.subscribe(endpoint, X) as x:
            assert await path_of(x) == "/x"
            async with streams.subscribe(endpoint, Y) as y:
                assert await path_of(y) == "/y"
                assert api.stream_count(endpoint) == 1
            with pytest.raises(trio.ClosedResourceError):
                y.receive_nowait()
            api.rotate_svids()
            assert await path_of(x) == "/x"
            assert api.stream_count(endpoint) == 1

    for _ in range(2):  # an address that was left can be used again
        trio.run(subscribe)
        eventually(lambda: api.stream_count(endpoint) == 0, "the stream is closed")


def test_the_first_subscriber_may_leave_before_the_last(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint, streams: WorkloadStreams
) -> None:
    async def subscribe() -> None:
        first = streams.subscribe(endpoint, X)
        await path_of(await first.__aenter__())
        async with streams.subscribe(endpoint, Y) as y:
            await path_of(y)
            await first.__aexit__(None, None, None)
            api.rotate_svids()
            assert await path_of(y) == "/y"

    trio.run(subscribe)


def test_each_address_has_its_own_stream(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint, other: WorkloadEndpoint, streams: WorkloadStreams
) -> None:
    async def subscribe() -> None:
        async with streams.subscribe(endpoint, X) as here, streams.subscribe(other, X) as there:
            await path_of(here)
            await path_of(there)
            assert (api.stream_count(endpoint), api.stream_count(other)) == (1, 1)

    trio.run(subscribe)


def test_a_stream_that_has_failed_is_replaced_for_the_next_subscriber(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint, streams: WorkloadStreams
) -> None:
    async def subscribe() -> None:
        api.publish(endpoint, SVIDS, Refusal("UNIMPLEMENTED", "no"))
        async with streams.subscribe(endpoint, X) as failed:
            with trio.fail_after(LIMIT):
                assert isinstance(await failed.receive(), FatalError)
            api.rotate_svids()
            async with streams.subscribe(endpoint, X) as x:
                assert await path_of(x) == "/x"
                async with streams.subscribe(endpoint, Y) as y:
                    assert await path_of(y) == "/y"
                    assert api.stream_count(endpoint) == 1

    trio.run(subscribe)
    eventually(lambda: api.stream_count(endpoint) == 0, "both streams are closed")


def test_a_subscriber_that_does_not_read_delays_no_other(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint, streams: WorkloadStreams
) -> None:
    async def subscribe() -> None:
        async with streams.subscribe(endpoint, X) as idle, streams.subscribe(endpoint, Y) as y:
            for _ in range(5):
                await path_of(y)
                api.rotate_svids()
            await path_of(y)
            (newest,) = await receive_newest(idle)
            assert isinstance(newest, Updated)
            assert newest.is_new

    trio.run(subscribe)


def test_a_subscriber_that_fails_leaves_the_stream_to_the_others(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint, streams: WorkloadStreams
) -> None:
    async def subscribe() -> None:
        async with streams.subscribe(endpoint, Y) as y:
            with pytest.raises(ZeroDivisionError):
                async with streams.subscribe(endpoint, X):
                    raise ZeroDivisionError
            await path_of(y)
            api.rotate_svids()
            assert await path_of(y) == "/y"

    trio.run(subscribe)


def test_the_event_loop_continues_while_a_stream_closes_also_after_a_cancellation(
    endpoint: WorkloadEndpoint, streams: WorkloadStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the stream waits here for what another task does afterwards."""
    has_continued = threading.Event()
    stop = WorkloadStream.stop

    def wait_and_stop(stream: WorkloadStream) -> None:
        assert has_continued.wait(LIMIT)
        stop(stream)

    monkeypatch.setattr(WorkloadStream, "stop", wait_and_stop)

    async def subscribe(scope: trio.CancelScope) -> None:
        with scope:
            async with streams.subscribe(endpoint, X):
                scope.cancel()
                await trio.sleep_forever()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscribe, trio.CancelScope())
            await trio.testing.wait_all_tasks_blocked()
            has_continued.set()

    trio.run(main)
    assert not [thread for thread in threading.enumerate() if thread.name == "workload-api"]
