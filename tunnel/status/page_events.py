"""Server-sent events for the page: the history first, then the overview each second and new points of the history.

Nothing is collected while nobody listens, and one overview serves all listeners.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import trio

from tunnel.status.history import History
from tunnel.status.overview import encode_json_line

INTERVAL = 1.0  # seconds between two overviews
_RETRY = b"retry: 1000\n\n"  # milliseconds until a browser connects again
_NEVER = float("-inf")


class PageEvents:
    """Makes the streams of all browsers."""

    def __init__(self, read_overview: Callable[[], Awaitable[bytes]], history: History) -> None:
        self._read_overview = read_overview
        self._history = history
        self._collecting = trio.Lock()
        self._overview = b""
        self._number = 0  # of the overview
        self._collected = _NEVER  # trio's time

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield events without an end."""
        seen = self._history.count
        yield _RETRY + _encode_event("history", encode_json_line(self._history.document()))
        is_fresh = trio.current_time() - self._collected < INTERVAL
        number = self._number if is_fresh else await self._next(self._number)
        while True:
            points = self._history.after(seen)
            seen = self._history.count
            events = [_encode_event("point", encode_json_line(point)) for point in points]
            yield b"".join((*events, _encode_event("overview", self._overview)))
            number = await self._next(number)

    async def _next(self, number: int) -> int:
        """Wait until there is an overview with a higher number, and return its number."""
        async with self._collecting:
            if self._number <= number:
                await trio.sleep_until(self._collected + INTERVAL)
                self._overview = await self._read_overview()
                self._collected = trio.current_time()
                self._number += 1
        return self._number


def _encode_event(name: str, line: bytes) -> bytes:
    """Return one event; its data is one line."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), line)
