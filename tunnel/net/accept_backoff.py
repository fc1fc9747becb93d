"""The pause after an error of accept(2)."""

from __future__ import annotations

import errno

from tunnel.backoff import doubled_delay

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 1.0  # seconds, as in Go's net/http
# Errors of the accepted connection, which accept(2) reports once. EPERM is not one: a security module leaves the connection
# in the queue, so an attempt without a pause would be repeated for ever.
_CONNECTION_ERRORS = {
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
}


class AcceptBackoff:
    """The pauses of one listener between attempts to accept, doubled with each error (usually: too many open files)."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures = 0

    def pause_after(self, error: OSError) -> float | None:
        """Seconds to wait before the next attempt; None if the error is about the accepted connection only."""
        if error.errno in _CONNECTION_ERRORS:
            return None
        self._failures += 1
        return doubled_delay(_FIRST_PAUSE, self._failures, _LONGEST_PAUSE)

    def reset(self) -> None:
        """A connection has been accepted."""
        self._failures = 0
