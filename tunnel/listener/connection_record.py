"""The record of one ended connection, from which counters and log lines are made."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from tunnel.authz.peer import PLAINTEXT, Peer
from tunnel.errors import TlsFault
from tunnel.relay.close_reason import CloseReason
from tunnel.status.counters import Counters
from tunnel.tls.negotiated import TlsParameters


class ConnectionOutcome(Enum):
    """How an accepted connection ended; the value is its counter, if it has one of its own (`count_connection`)."""

    __hash__ = object.__hash__  # in C

    RELAYED = "relayed"  # the relay began; the close reason says how it ended
    REFUSED = "refused"  # the handshake failed, or the peer was not admitted
    OVER_LIMIT = "over_limit"  # the peer was admitted and exceeds a limit per peer
    DIAL_FAILED = "dial_failed"  # the target, or the outbound proxy, could not be reached
    HEADER_FAILED = "header_failed"  # the PROXY header could not be built or written
    CLIENT_GONE = "client_gone"  # the accepted side closed before the relay
    CLOSED_WITHOUT_DATA = "closed_without_data"  # the client closed without having sent a byte
    ACME_CHALLENGE = "acme_challenge"  # an ACME server has verified a challenge
    NO_IDENTITY = "no_identity"  # closed because there was no valid identity
    WRONG_LOCAL_USER = "wrong_local_user"  # from a process of another user, where only our own may connect
    STOPPED = "stopped"  # closed before the relay because the process stops
    CRASHED = "crashed"  # closed before the relay by an internal error


class ConnectionRecord(NamedTuple):
    """One connection at its end, or at the start of its relay; durations in seconds, None for what was not reached.

    The two begins are seconds after accept, of the last attempt if there were several. A server's handshake begins when it has
    a slot and reads the first bytes of the client; what has begun and has no duration has failed.
    Bytes are of plaintext: `forwarded` from the accepted side to the target, `returned` the other way.
    """

    outcome: ConnectionOutcome
    is_server: bool
    listener: str  # the address that accepted it
    source: str
    seconds: float  # from accept to the end
    time: float  # Unix time of this moment
    target: str = ""  # the address that was connected
    target_name: str = ""  # the target as it is configured
    via_proxy: str = ""  # the outbound proxy, if one is used
    peer: Peer | None = None  # verified by its certificate, also if no rule admits it
    rule: str = ""  # the access rule that admitted the peer
    reason: str = ""  # why it was not relayed or its relay failed: one word
    detail: str = ""  # the reason as a message
    tls: TlsParameters | None = None
    handshake_seconds: float | None = None
    dial_seconds: float | None = None
    forwarded: int = 0
    returned: int = 0
    close_reason: CloseReason | None = None  # of the relay
    has_fin_without_close_notify: bool = False
    listener_name: str = ""  # in the configuration
    server_name: str = ""  # that the client sent (SNI), and the application protocol (ALPN): known only with an access log
    alpn: str = ""
    handshake_began: float | None = None
    dial_began: float | None = None

    @property
    def is_plaintext(self) -> bool:
        """Whether it was the permitted connection of a plain TCP client."""
        return self.peer is None and self.rule == PLAINTEXT

    @property
    def is_handshake_failed(self) -> bool:
        """Whether the handshake with a client failed: it was refused, or closed the connection."""
        return self.is_server and self.tls is None and self.outcome in _IN_HANDSHAKE


_IN_HANDSHAKE = {ConnectionOutcome.REFUSED, ConnectionOutcome.CLOSED_WITHOUT_DATA, ConnectionOutcome.ACME_CHALLENGE}
_REFUSED = {
    ConnectionOutcome.REFUSED,
    ConnectionOutcome.OVER_LIMIT,
    ConnectionOutcome.DIAL_FAILED,
    ConnectionOutcome.HEADER_FAILED,
}
_LIMITS = {CloseReason.CLOSE_TIMEOUT, CloseReason.LIFETIME}
_FAILURES = {
    CloseReason.TRUNCATED,
    CloseReason.PROTOCOL,
    CloseReason.NO_DATA,
    CloseReason.REFUSED_BY_PEER,
    CloseReason.CRASH,
}


def count_connection(counters: Counters, record: ConnectionRecord) -> None:
    """Count the end of a connection; its acceptance, its handshake and the start of its relay are counted when they happen."""
    if counters.lifetime is not None:
        counters.lifetime.update(int(record.seconds * 1e9))
    if record.is_handshake_failed and counters.handshake is not None:
        counters.handshake.update(int(record.seconds * 1e9))
    if record.close_reason is not None:
        if counters.durations is not None:
            counters.durations.connection.add(record.seconds)
        _count_relay(counters, record, record.close_reason)
        return
    if record.outcome is ConnectionOutcome.HEADER_FAILED:
        counters.dial_failed += 1
    elif record.outcome is ConnectionOutcome.CRASHED:
        counters.crashed_before_relay += 1
    elif record.outcome is not ConnectionOutcome.STOPPED:
        setattr(counters, record.outcome.value, getattr(counters, record.outcome.value) + 1)
    if record.outcome in _REFUSED:
        counters.add_reason(record.reason)
        counters.handshake_timeouts += record.is_server and record.reason == TlsFault.TIMEOUT.value


def _count_relay(counters: Counters, record: ConnectionRecord, close_reason: CloseReason) -> None:
    counters.forwarded += record.forwarded
    counters.returned += record.returned
    if close_reason is CloseReason.CLOSED and record.is_plaintext:
        return
    if close_reason is CloseReason.CLOSED:
        counters.fin_without_close_notify += record.has_fin_without_close_notify
        counters.close_notify += not record.has_fin_without_close_notify
        return
    if close_reason is CloseReason.WITHDRAWN:
        counters.add_withdrawal(record.reason)
    counters.reaped += close_reason in _LIMITS
    counters.broken += close_reason in _FAILURES
    if close_reason is CloseReason.TRUNCATED:
        counters.truncated += 1
    else:
        counters.other_ends[close_reason.outcome] = counters.other_ends.get(close_reason.outcome, 0) + 1
