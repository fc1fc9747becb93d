"""Dials several addresses on the event loop and keeps the first connection. The owner sets the time limit."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from tunnel.net.race import ATTEMPT_DELAY, Attempt, Race
from tunnel.net.sockets import SocketAddress
from tunnel.relay.loop import HANGUP, OUT, Loop, Timer
from tunnel.relay.step import StepOwner


class Dial:
    """A step that connects; its result is the `Attempt` that connected first.

    If all fail, it fails with the TargetError of the last one.
    """

    __slots__ = ("_loop", "_owner", "_race", "_timer")

    def __init__(self, loop: Loop, owner: StepOwner, endpoints: Iterable[SocketAddress]) -> None:
        self._loop = loop
        self._owner = owner
        self._race = Race(endpoints, loop.retire)
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin the next attempt."""
        self._stop_timer()
        attempt = self._race.begin()
        if attempt is not None:
            self._loop.watch(attempt.socket, partial(self._ready, attempt), self._owner)
        if attempt is not None and self._race.has_more:
            self._timer = self._loop.call_at(self._loop.clock() + ATTEMPT_DELAY, self.start, self._owner)
        self._report()

    def abandon(self) -> None:
        """Close all attempts."""
        self._stop_timer()
        self._race.stop()

    def _ready(self, attempt: Attempt, events: int) -> None:
        attempt.events |= events
        if not events & (OUT | HANGUP) or not self._race.settle(attempt):
            return
        if self._race.winner is None:  # it failed: begin the next one at once
            self.start()
        else:
            self._report()

    def _report(self) -> None:
        winner = self._race.winner
        if winner is not None:
            self._stop_timer()
            self._owner.step_done(winner)
        elif self._race.is_lost:
            self._owner.step_failed(self._race.failure)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._loop.cancel(self._timer)
            self._timer = None
