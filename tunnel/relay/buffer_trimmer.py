"""Frees the memory that OpenSSL keeps after a burst, once the connection is idle: a memory BIO never shrinks."""

from __future__ import annotations

from tunnel.relay.loop import Loop, Timer
from tunnel.relay.relay import Relay

_INTERVAL = 1.0  # seconds without traffic after which a connection is idle


class BufferTrimmer:
    """Trims the buffers of the relays that requested it; its timer runs only while there are any."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._relays: dict[Relay, int] = {}  # with the bytes forwarded at the last check
        self._timer: Timer | None = None

    def add(self, relay: Relay) -> None:
        """Trim the buffers of a relay once it is idle."""
        self._relays[relay] = -1
        if self._timer is None:
            self._set_timer()

    def crashed(self, crash: Exception) -> None:
        """Forget all relays after a bug; the next burst adds a relay again."""
        self._relays.clear()
        self._timer = None

    def _set_timer(self) -> None:
        self._timer = self._loop.call_at(self._loop.clock() + _INTERVAL, self._trim, self)

    def _trim(self) -> None:
        relays, self._relays = self._relays, {}
        for relay, before in relays.items():
            forwarded = relay.up + relay.down
            if forwarded == before or not relay.is_open:
                relay.trim_buffers()
            else:
                self._relays[relay] = forwarded
        self._timer = None
        if self._relays:
            self._set_timer()
