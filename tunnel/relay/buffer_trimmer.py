"""Giving back the memory that bursts leave behind.

Knows that a memory BIO keeps the largest size it ever had, and when a connection has been quiet; must not know sessions.
It costs a timer only while there is something to give back.
"""

from __future__ import annotations

from tunnel.relay.loop import Loop, Timer
from tunnel.relay.relay import Relay

_INTERVAL = 1.0  # seconds of silence that make a connection quiet


class BufferTrimmer:
    """Watches relays that have grown until they are quiet."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._grown: dict[Relay, int] = {}  # with the bytes carried when last looked at
        self._timer: Timer | None = None

    def add(self, relay: Relay) -> None:
        """Look at a relay from now on until it has been quiet for a while."""
        self._grown[relay] = -1
        if self._timer is None:
            self._set_timer()

    def crashed(self, crash: Exception) -> None:
        """Memory is not given back this time; the next burst starts again."""
        self._grown.clear()
        self._timer = None

    def _set_timer(self) -> None:
        self._timer = self._loop.call_at(self._loop.clock() + _INTERVAL, self._trim, self)

    def _trim(self) -> None:
        grown, self._grown = self._grown, {}
        for relay, seen in grown.items():
            carried = relay.up + relay.down
            if carried == seen or not relay.is_open:
                relay.renew_memory()
            else:
                self._grown[relay] = carried
        self._timer = None
        if self._grown:
            self._set_timer()
