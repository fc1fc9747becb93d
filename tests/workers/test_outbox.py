"""What a worker collects for its parent: few messages, and a bound on what waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from tunnel.log import Category
from tunnel.workers.messages import Batch, LogLine
from tunnel.workers.outbox import _MOST_ENTRIES, Outbox


class Parent:
    """A channel and a loop that keep what they are given."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.timers: list[Any] = []
        self.channel = SimpleNamespace(is_full=False, send=self.batches.append)
        loop = SimpleNamespace(call_later=lambda _delay, action: self.timers.append(action))
        self.outbox = Outbox(cast("Any", loop), cast("Any", self.channel))

    def add(self, count: int) -> None:
        for number in range(count):
            self.outbox.add(LogLine(0.0, str(number), Category.OTHER, ""))

    def sizes(self) -> list[int]:
        return [len(batch.entries) for batch in self.batches]


def test_entries_of_a_short_time_are_one_message() -> None:
    parent = Parent()
    parent.add(3)
    assert (parent.sizes(), len(parent.timers)) == ([], 1)
    parent.timers[0]()
    assert parent.sizes() == [3]


def test_many_entries_are_sent_at_once() -> None:
    parent = Parent()
    parent.add(2 * _MOST_ENTRIES + 1)
    assert parent.sizes() == [_MOST_ENTRIES] * 2
    for timer in parent.timers:
        timer()
    assert parent.sizes() == [_MOST_ENTRIES] * 2 + [1]


def test_entries_are_dropped_and_counted_while_the_parent_does_not_read() -> None:
    parent = Parent()
    parent.channel.is_full = True
    parent.add(5)
    assert (parent.outbox.dropped, parent.timers) == (5, [])
