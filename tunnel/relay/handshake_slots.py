"""The handshakes of one listener: how many are in progress, and how much of their work one turn of the loop does.

A connection that waits for its handshake holds nothing but its socket. Nobody keeps others out: one source has a quarter
of the slots at most, and waiting sources take turns.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Protocol

from tunnel.relay.loop import Loop, Owner
from tunnel.tls.engine import Buffers

_STEPS = 2  # flights that are worked on in one turn: open connections are served in between, and a turn more costs little
_SHARES = 4  # sources that can fill all slots together


class Waiting(Protocol):
    """A handshake, as far as slots and turns go."""

    @property
    def owner(self) -> Owner:
        """Who is told of a bug in it."""

    @property
    def source(self) -> str:
        """Who is counted for its slot."""

    def resume(self) -> None:
        """Go on: there is a slot, or a turn."""


class HandshakeSlots:
    """Who has one of `limit` slots, 0 for no limit, and whose turn it is."""

    __slots__ = ("_due", "_held", "_holders", "_is_ending", "_limit", "_steps", "_waiting", "buffers", "loop")

    def __init__(self, loop: Loop, buffers: Buffers, limit: int = 0) -> None:
        self.loop = loop
        self.buffers = buffers
        self._limit = limit
        self._holders: Counter[str] = Counter()  # by source
        self._held = 0
        self._waiting: dict[str, dict[Waiting, None]] = {}  # by source, each in the order of arrival
        self._steps = 0  # of this turn
        self._due: deque[Waiting] = deque()
        self._is_ending = False  # the end of this turn is to be seen to

    def enter(self, handshake: Waiting) -> bool:
        """Take a slot for it; False when there is none: `resume` is called when there is."""
        if not self._limit:
            return True
        if self._held < self._limit and self._has_share(handshake.source) and handshake.source not in self._waiting:
            self._take(handshake)
            return True
        self._waiting.setdefault(handshake.source, {})[handshake] = None
        return False

    def leave(self, handshake: Waiting, *, is_waiting: bool) -> None:
        """It is over: its slot goes to the next source that waits."""
        if not self._limit:
            return
        if is_waiting:
            self._forget(handshake)
            return
        self._held -= 1
        self._holders[handshake.source] -= 1
        if not self._holders[handshake.source]:
            del self._holders[handshake.source]
        source = next(filter(self._has_share, self._waiting), None)
        if source is not None:
            chosen = next(iter(self._waiting[source]))
            self._take(chosen)
            self._forget(chosen, goes_last=True)
            self.loop.call_at(0, chosen.resume, chosen.owner)

    def may_step(self, handshake: Waiting) -> bool:
        """Whether it may work now; else `resume` is called in a later turn, in the order in which they have asked."""
        if not self._is_ending:
            self._is_ending = True
            self.loop.call_soon(self._end_turn)
        if self._steps < _STEPS and not self._due:
            self._steps += 1
            return True
        self._due.append(handshake)
        return False

    def _has_share(self, source: str) -> bool:
        return self._holders[source] < max(self._limit // _SHARES, 1)

    def _take(self, handshake: Waiting) -> None:
        self._held += 1
        self._holders[handshake.source] += 1

    def _forget(self, handshake: Waiting, *, goes_last: bool = False) -> None:
        queue = self._waiting.get(handshake.source, {})
        queue.pop(handshake, None)
        if not queue:
            self._waiting.pop(handshake.source, None)
        elif goes_last:
            self._waiting[handshake.source] = self._waiting.pop(handshake.source)

    def _end_turn(self) -> None:
        self._steps = min(_STEPS, len(self._due))
        for _ in range(self._steps):
            chosen = self._due.popleft()
            self.loop.call_at(0, chosen.resume, chosen.owner)
        self._is_ending = bool(self._steps)
        if self._is_ending:
            self.loop.call_soon(self._end_turn)
