"""How a relay can end, and who is told.

Knows the words; must not know how an end comes about.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from tunnel.relay.loop import Owner


class CloseReason(Enum):
    """How a relay ended; the value is the log's word."""

    CLOSED = "closed"
    TRUNCATED = "truncated"
    RESET_BY_PEER = "reset-by-peer"
    RESET_BY_PLAIN = "reset-by-plain-side"
    PROTOCOL = "tls-failure"
    NO_DATA = "records-without-data"
    REFUSED_BY_PEER = "refused-by-peer"
    CLOSE_TIMEOUT = "close-timeout"
    LIFETIME = "max-conn-lifetime"
    CUT = "cut"
    CRASH = "internal-error"


class RelayOwner(Owner, Protocol):
    """Whose connection it is."""

    def relay_ended(self, how: CloseReason, detail: str) -> None:
        """Both sockets have been given up."""

    def relay_grown(self) -> None:
        """A burst has made OpenSSL's memory large."""
