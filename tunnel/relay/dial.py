"""Dialling on the event loop: one connection to the first of several endpoints that answers.

The caller owns the time limit of the whole.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from tunnel.errors import TargetError
from tunnel.net.race import ATTEMPT_DELAY, Attempt, Race
from tunnel.net.sockets import SocketAddress
from tunnel.relay.loop import GONE, OUT, Loop, Owner, Timer


class DialOwner(Owner, Protocol):
    """Who wants the connection."""

    def target_connected(self, sock: socket.socket, endpoint: SocketAddress) -> None:
        """The connection is there."""

    def dial_failed(self, error: TargetError) -> None:
        """No endpoint answered; the error is that of the attempt that failed last."""


class Dial:
    """One race for a connection, on the loop."""

    __slots__ = ("_loop", "_owner", "_race", "_timer")

    def __init__(self, loop: Loop, owner: DialOwner, endpoints: Iterable[SocketAddress]) -> None:
        self._loop = loop
        self._owner = owner
        self._race = Race(endpoints, loop.retire)
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin the next attempt; the owner is told of the outcome, possibly before this returns."""
        self._stop_timer()
        attempt = self._race.begin()
        if attempt is not None:
            self._loop.watch(attempt.socket, partial(self._ready, attempt), self._owner)
        if attempt is not None and self._race.has_more:
            self._timer = self._loop.call_at(self._loop.clock() + ATTEMPT_DELAY, self.start, self._owner)
        self._tell()

    def abandon(self) -> None:
        """Stop trying; the owner is told nothing more."""
        self._stop_timer()
        self._race.stop()

    def _ready(self, attempt: Attempt, events: int) -> None:
        if not events & (OUT | GONE) or not self._race.settle(attempt):
            return
        if self._race.winner is None:  # it failed: the next one begins at once
            self.start()
        else:
            self._tell()

    def _tell(self) -> None:
        winner = self._race.winner
        if winner is not None:
            self._stop_timer()
            self._owner.target_connected(winner.socket, winner.endpoint)
        elif self._race.is_lost:
            self._owner.dial_failed(self._race.failure)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._loop.cancel(self._timer)
            self._timer = None
