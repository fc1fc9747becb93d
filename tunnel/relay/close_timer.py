"""The limit for the time without traffic after one side of a relay has ended."""

from __future__ import annotations

from collections.abc import Callable

from tunnel.relay.loop import Loop, Owner, Timer


class CloseTimer:
    """Calls `expire` once nothing was forwarded for `seconds`; at 0 seconds inside `start`."""

    __slots__ = ("_expire", "_last_activity", "_loop", "_owner", "_seconds", "_timer")

    def __init__(self, loop: Loop, owner: Owner, seconds: float, expire: Callable[[], None]) -> None:
        self._loop = loop
        self._owner = owner
        self._seconds = seconds
        self._expire = expire
        self._last_activity = loop.clock()
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin."""
        due = self._last_activity + self._seconds
        if due > self._loop.clock():
            self._timer = self._loop.call_at(due, self.start, self._owner)  # traffic may have moved the time until then
        else:
            self._expire()

    def note_traffic(self) -> None:
        """Begin again at this time."""
        self._last_activity = self._loop.clock()

    def cancel(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._loop.cancel(self._timer)
