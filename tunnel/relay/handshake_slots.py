"""Limits the concurrent handshakes of a listener, and the work on handshakes in one turn of the loop."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from tunnel.relay.loop import Loop, Owner
from tunnel.tls.records import Buffers

_RUNS_PER_TURN = 2  # flights per turn: open connections are served between turns, and an extra turn costs little
_SOURCES_TO_FILL = 4  # one source has at most a quarter of the slots


class SlotUser(Protocol):
    """A handshake that needs slots and turns."""

    @property
    def owner(self) -> Owner:
        """The owner of its events, whose `crashed` is called after a bug."""

    @property
    def source(self) -> str:
        """The source address, by which slots are counted."""

    def resume(self) -> None:
        """Continue: there is a slot, or a turn."""


class HandshakeTurns:
    """Lets a few handshakes run in each turn of a loop; the others wait in order."""

    __slots__ = ("_is_turn_end_scheduled", "_runnable", "_runs", "loop")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._runs = 0  # of this turn
        self._runnable: deque[SlotUser] = deque()
        self._is_turn_end_scheduled = False  # `_end_turn` is to be called

    def may_run(self, handshake: SlotUser) -> bool:
        """Whether the handshake may run in this turn; if not, `resume` is called in a later one, in order."""
        if not self._is_turn_end_scheduled:
            self._is_turn_end_scheduled = True
            self.loop.call_soon(self._end_turn)
        if self._runs < _RUNS_PER_TURN and not self._runnable:
            self._runs += 1
            return True
        self._runnable.append(handshake)
        return False

    def _end_turn(self) -> None:
        self._runs = min(_RUNS_PER_TURN, len(self._runnable))
        for _ in range(self._runs):
            chosen = self._runnable.popleft()
            self.loop.call_at(0, chosen.resume, chosen.owner)
        self._is_turn_end_scheduled = bool(self._runs)
        if self._is_turn_end_scheduled:
            self.loop.call_soon(self._end_turn)


class HandshakeSlots:
    """`limit` slots (0 for no limit) of one listener.

    A source holds at most a quarter of the slots, and waiting sources take turns. A handshake that waits for a slot holds only
    its socket.
    """

    __slots__ = (
        "_held",
        "_held_by_source",
        "_limit",
        "_waiting",
        "buffers",
        "loop",
        "may_run",
    )

    def __init__(self, turns: HandshakeTurns, buffers: Buffers, limit: int = 0) -> None:
        self.loop = turns.loop
        self.may_run = turns.may_run
        self.buffers = buffers
        self._limit = limit
        self._held_by_source: dict[str, int] = {}
        self._held = 0
        self._waiting: dict[str, dict[SlotUser, None]] = {}  # by source, in order of arrival

    @property
    def held(self) -> int:
        """How many handshakes have a slot; 0 without a limit."""
        return self._held

    def acquire(self, handshake: SlotUser) -> bool:
        """Take a slot; return False if none is free, and call `resume` when one is."""
        if not self._limit:
            return True
        if self._held < self._limit and self._is_below_share(handshake.source) and handshake.source not in self._waiting:
            self._take(handshake)
            return True
        self._waiting.setdefault(handshake.source, {})[handshake] = None
        return False

    def release(self, handshake: SlotUser, *, is_waiting: bool) -> None:
        """Give the slot to the next source that waits, or remove a handshake that waits."""
        if not self._limit:
            return
        if is_waiting:
            self._remove_waiting(handshake)
            return
        self._held -= 1
        held = self._held_by_source.pop(handshake.source)
        if held > 1:
            self._held_by_source[handshake.source] = held - 1
        source = next(filter(self._is_below_share, self._waiting), None) if self._waiting else None
        if source is not None:
            chosen = next(iter(self._waiting[source]))
            self._take(chosen)
            self._remove_waiting(chosen, move_source_last=True)
            self.loop.call_at(0, chosen.resume, chosen.owner)

    def _is_below_share(self, source: str) -> bool:
        return self._held_by_source.get(source, 0) < max(self._limit // _SOURCES_TO_FILL, 1)

    def _take(self, handshake: SlotUser) -> None:
        self._held += 1
        self._held_by_source[handshake.source] = self._held_by_source.get(handshake.source, 0) + 1

    def _remove_waiting(self, handshake: SlotUser, *, move_source_last: bool = False) -> None:
        queue = self._waiting.get(handshake.source, {})
        queue.pop(handshake, None)
        if not queue:
            self._waiting.pop(handshake.source, None)
        elif move_source_last:
            self._waiting[handshake.source] = self._waiting.pop(handshake.source)
