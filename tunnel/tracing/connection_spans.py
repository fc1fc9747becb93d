"""The spans of one connection, as values: when each step was, what is known about it, and whether it failed."""

from __future__ import annotations

from tunnel.lazy_dataclass import dataclass
from tunnel.listener.connection_attributes import (
    Attributes,
    connection_attributes,
    endpoint_attributes,
    peer_endpoint_attributes,
    tls_attributes,
)
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.log import escape_detail
from tunnel.relay.close_reason import CloseReason

_SUCCESSES = {
    ConnectionOutcome.CLOSED_WITHOUT_DATA,  # health checks
    ConnectionOutcome.ACME_CHALLENGE,
    ConnectionOutcome.STOPPED,
}
_PROPER_ENDS = {CloseReason.CLOSED, CloseReason.CLOSE_TIMEOUT, CloseReason.LIFETIME, CloseReason.SHUTDOWN}


@dataclass(frozen=True, slots=True)
class ConnectionSpan:
    """One step, or the whole connection; times in seconds after accept."""

    name: str
    begin: float
    end: float
    attributes: Attributes
    error: str = ""  # why it failed


def describe_spans(record: ConnectionRecord) -> tuple[ConnectionSpan, ...]:
    """Return the span of the connection, then those of its steps in the order of time."""
    steps = [step for step in (_handshake(record), _dial(record)) if step is not None]
    steps.sort(key=lambda step: step.begin)
    return (_connection(record), _accept(record, steps), *steps)


def describe_error(record: ConnectionRecord) -> str:
    """Return why a connection failed or was refused, for people; "" if it ended properly."""
    kind = error_type(record)
    if not kind or not record.detail:
        return kind
    detail = record.detail.removeprefix(f"{kind}: ")  # as that of a peer that a rule has refused begins
    return f"{kind}: {escape_detail(detail)}"


def error_type(record: ConnectionRecord) -> str:
    """Return the reason of a failure as one word; "" if the connection ended properly."""
    if record.close_reason is not None:
        is_proper = record.close_reason in _PROPER_ENDS
        return "" if is_proper else record.reason or record.close_reason.value
    return "" if record.outcome in _SUCCESSES else record.reason or record.outcome.value


def _connection(record: ConnectionRecord) -> ConnectionSpan:
    attributes = {**connection_attributes(record), **_error_attributes(record)}
    return ConnectionSpan("connection", 0.0, record.seconds, attributes, describe_error(record))


def _accept(record: ConnectionRecord, steps: list[ConnectionSpan]) -> ConnectionSpan:
    """The time before the first step: waiting for the first bytes and for a handshake slot."""
    if steps:
        return ConnectionSpan("accept", 0.0, steps[0].begin, {})
    return ConnectionSpan("accept", 0.0, record.seconds, _error_attributes(record), describe_error(record))


def _handshake(record: ConnectionRecord) -> ConnectionSpan | None:
    return _step("handshake", record, record.handshake_began, record.handshake_seconds, tls_attributes(record))


def _dial(record: ConnectionRecord) -> ConnectionSpan | None:
    attributes = {**endpoint_attributes("server", record.target_name), **peer_endpoint_attributes(record.target)}
    return _step("dial", record, record.dial_began, record.dial_seconds, attributes)


def _step(
    name: str, record: ConnectionRecord, begin: float | None, seconds: float | None, attributes: Attributes
) -> ConnectionSpan | None:
    if begin is None:
        return None
    if seconds is not None:
        return ConnectionSpan(name, begin, begin + seconds, attributes)
    return ConnectionSpan(name, begin, record.seconds, {**attributes, **_error_attributes(record)}, describe_error(record))


def _error_attributes(record: ConnectionRecord) -> Attributes:
    kind = error_type(record)
    return {"error.type": kind} if kind else {}
