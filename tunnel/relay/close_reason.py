"""The reasons for which a relay ends, and the interface of its owner."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from tunnel.relay.loop import Owner


class CloseReason(Enum):
    """Why a relay ended; the value is `end=` in the log and, with underscores, a label of the metric `outcomes`."""

    __hash__ = object.__hash__  # in C

    CLOSED = "closed"
    TRUNCATED = "truncated"
    RESET_BY_PEER = "reset-by-peer"
    RESET_BY_PLAIN = "reset-by-plain-side"
    PROTOCOL = "tls-failure"
    NO_DATA = "records-without-data"
    REFUSED_BY_PEER = "refused-by-peer"
    CLOSE_TIMEOUT = "close-timeout"
    LIFETIME = "max-conn-lifetime"
    WITHDRAWN = "withdrawn"
    SHUTDOWN = "shutdown"
    CRASH = "internal-error"

    @property
    def outcome(self) -> str:
        """The name in counts by outcome."""
        return self.value.replace("-", "_")


# The process or the session cannot wait, or a withdrawn peer must not delay its end by not reading.
IMMEDIATE = {CloseReason.SHUTDOWN, CloseReason.CRASH, CloseReason.WITHDRAWN}


class RelayOwner(Owner, Protocol):
    """The session that a relay belongs to."""

    def relay_ended(self, reason: CloseReason, detail: str) -> None:
        """The relay has ended and has closed both sockets, or lets them linger."""

    def relay_needs_trim(self) -> None:
        """A burst has enlarged OpenSSL's buffers: call `trim_buffers` once the relay is idle."""
