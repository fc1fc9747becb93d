"""Each browser gets the history, then the overview each second; nothing is collected while nobody listens."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tunnel.status.history import History, HistoryPoint
from tunnel.status.page_events import PageEvents

Event = tuple[str, Any]


class Overviews:
    """Counts how often the overview was collected."""

    def __init__(self) -> None:
        self.count = 0

    async def read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        self.count += 1
        return b'{"number":%d}' % self.count


def parse(data: bytes) -> list[Event]:
    """The events of one part of a stream."""
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def run(test: Callable[[Overviews, History, PageEvents], Awaitable[None]]) -> None:
    async def one() -> None:
        overviews, history = Overviews(), History()
        with trio.fail_after(1000):
            await test(overviews, history, PageEvents(overviews.read, history))

    trio.run(one, clock=MockClock(autojump_threshold=0))


def test_the_history_comes_first_then_the_overview_at_once_and_each_second() -> None:
    async def test(overviews: Overviews, history: History, events: PageEvents) -> None:
        history.add(HistoryPoint(1.0, 2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
        async with aclosing(events.stream()) as stream:
            begun = trio.current_time()
            first = await anext(stream)
            assert first.startswith(b"retry: 1000\n\n")
            ((name, document),) = parse(first)
            assert (name, document["points"]) == ("history", [[1.0, 2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
            assert parse(await anext(stream)) == [("overview", {"number": 1})]
            assert trio.current_time() == begun
            assert parse(await anext(stream)) == [("overview", {"number": 2})]
            assert trio.current_time() == begun + 1
            await trio.sleep(7)  # the client reads slowly: it gets the newest, and none that it has missed
            assert parse(await anext(stream)) == [("overview", {"number": 3})]

    run(test)


def test_a_new_point_comes_with_the_next_overview() -> None:
    async def test(overviews: Overviews, history: History, events: PageEvents) -> None:
        async with aclosing(events.stream()) as stream:
            await anext(stream)
            await anext(stream)
            history.add(HistoryPoint(1.0, 2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
            assert [name for name, _data in parse(await anext(stream))] == ["point", "overview"]
            assert [name for name, _data in parse(await anext(stream))] == ["overview"]

    run(test)


def test_all_listeners_share_one_collection() -> None:
    async def test(overviews: Overviews, history: History, events: PageEvents) -> None:
        got: list[list[Event]] = []

        async def read() -> None:
            async with aclosing(events.stream()) as stream:
                await anext(stream)
                for _ in range(3):
                    got.append(parse(await anext(stream)))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read)
        assert (overviews.count, len(got)) == (3, 15)
        assert got.count([("overview", {"number": 3})]) == 5

    run(test)


def test_a_listener_that_comes_later_gets_the_newest_overview_at_once() -> None:
    async def test(overviews: Overviews, history: History, events: PageEvents) -> None:
        async with aclosing(events.stream()) as one, aclosing(events.stream()) as other, trio.open_nursery() as nursery:
            await anext(one)
            await anext(one)
            nursery.start_soon(anext, one)  # waits for the next second
            await wait_all_tasks_blocked()
            begun = trio.current_time()
            await anext(other)
            assert parse(await anext(other)) == [("overview", {"number": 1})]
            assert trio.current_time() == begun

    run(test)


def test_nothing_is_collected_while_nobody_listens() -> None:
    async def test(overviews: Overviews, history: History, events: PageEvents) -> None:
        await trio.sleep(100)
        assert overviews.count == 0
        async with aclosing(events.stream()) as stream:
            await anext(stream)
            await anext(stream)
        await trio.sleep(100)
        assert overviews.count == 1

    run(test)


def test_a_listener_that_leaves_does_not_end_the_others() -> None:
    async def test(overviews: Overviews, history: History, events: PageEvents) -> None:
        async with aclosing(events.stream()) as one, aclosing(events.stream()) as other:
            for stream in (one, other):
                await anext(stream)
                await anext(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(anext, one)  # it collects for both
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert parse(await anext(other)) == [("overview", {"number": 2})]

    run(test)
