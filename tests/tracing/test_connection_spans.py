"""Each step of a connection is a span with its time, and a failure is in the span of the step that failed."""

from __future__ import annotations

import pytest

from tests.support.connection_records import dial_failed, outbound, refused, relayed
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.relay.close_reason import CloseReason
from tunnel.tracing.connection_spans import ConnectionSpan, describe_spans, error_type


def times(record: ConnectionRecord) -> list[tuple[str, float, float]]:
    return [(span.name, span.begin, span.end) for span in describe_spans(record)]


def failed(record: ConnectionRecord) -> dict[str, str]:
    """The spans with an error."""
    return {span.name: span.error for span in describe_spans(record) if span.error}


def span_of(record: ConnectionRecord, name: str) -> ConnectionSpan:
    return next(span for span in describe_spans(record) if span.name == name)


def test_the_steps_of_a_server_are_accept_handshake_and_dial() -> None:
    assert times(relayed()) == [
        ("connection", 0.0, 10.0),
        ("accept", 0.0, 1.0),
        ("handshake", 1.0, 1.5),
        ("dial", 1.5, 2.25),
    ]
    assert failed(relayed()) == {}


def test_a_client_dials_first() -> None:
    assert times(outbound()) == [
        ("connection", 0.0, 10.0),
        ("accept", 0.0, 0.25),
        ("dial", 0.25, 1.0),
        ("handshake", 1.0, 1.5),
    ]


def test_a_plain_client_has_no_handshake() -> None:
    record = relayed(handshake_began=None, handshake_seconds=None, tls=None, peer=None, rule="plaintext")
    assert times(record) == [("connection", 0.0, 10.0), ("accept", 0.0, 1.5), ("dial", 1.5, 2.25)]


def test_a_step_that_failed_lasts_to_the_end_and_has_the_error() -> None:
    assert times(refused())[1:] == [("accept", 0.0, 1.0), ("handshake", 1.0, 2.0)]
    error = "no-matching-rule: principal not allowed"
    assert failed(refused()) == {"connection": error, "handshake": error}
    assert span_of(refused(), "handshake").attributes["error.type"] == "no-matching-rule"
    assert times(dial_failed())[2:] == [("handshake", 1.0, 1.5), ("dial", 1.5, 2.0)]
    error = "connection-refused: tcp:127.0.0.1:6379: connection refused"
    assert failed(dial_failed()) == {"connection": error, "dial": error}


def test_a_connection_that_fails_before_its_first_step_has_an_accept_span_only() -> None:
    record = refused(handshake_began=None, reason="too-many-handshakes", detail="none of 2 slots")
    assert times(record) == [("connection", 0.0, 2.0), ("accept", 0.0, 2.0)]
    assert failed(record) == dict.fromkeys(("connection", "accept"), "too-many-handshakes: none of 2 slots")


def test_a_failure_after_the_steps_is_in_the_span_of_the_connection_only() -> None:
    record = relayed(outcome=ConnectionOutcome.OVER_LIMIT, close_reason=None, reason="too-many-connections-of-peer")
    assert failed(record) == {"connection": "too-many-connections-of-peer"}


def test_the_dial_has_the_target_and_the_handshake_what_it_negotiated() -> None:
    assert span_of(relayed(), "dial").attributes == {
        "server.address": "localhost",
        "server.port": 6379,
        "network.transport": "tcp",
        "network.peer.address": "127.0.0.1",
        "network.peer.port": 6379,
    }
    assert span_of(relayed(), "handshake").attributes["tls.cipher"] == "TLS_AES_128_GCM_SHA256"
    assert span_of(relayed(), "accept").attributes == {}
    assert span_of(refused(), "connection").attributes["error.type"] == "no-matching-rule"


@pytest.mark.parametrize(
    ("close_reason", "reason", "error"),
    [
        (CloseReason.CLOSED, "", ""),
        (CloseReason.SHUTDOWN, "shutdown", ""),
        (CloseReason.LIFETIME, "max-conn-lifetime", ""),
        (CloseReason.CLOSE_TIMEOUT, "close-timeout", ""),
        (CloseReason.TRUNCATED, "truncated", "truncated"),
        (CloseReason.RESET_BY_PEER, "reset-by-peer", "reset-by-peer"),
        (CloseReason.WITHDRAWN, "no-matching-rule", "no-matching-rule"),
        (CloseReason.CRASH, "internal-error", "internal-error"),
    ],
)
def test_a_relay_fails_unless_it_ended_as_it_should(close_reason: CloseReason, reason: str, error: str) -> None:
    assert error_type(relayed(close_reason=close_reason, reason=reason)) == error


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (ConnectionOutcome.CLOSED_WITHOUT_DATA, ""),
        (ConnectionOutcome.ACME_CHALLENGE, ""),
        (ConnectionOutcome.STOPPED, ""),
        (ConnectionOutcome.NO_IDENTITY, "no_identity"),
        (ConnectionOutcome.CRASHED, "crashed"),
    ],
)
def test_a_connection_without_a_reason_fails_by_its_outcome(outcome: ConnectionOutcome, error: str) -> None:
    assert error_type(refused(outcome=outcome, reason="", detail="")) == error


def test_a_detail_that_begins_with_the_reason_does_not_repeat_it() -> None:
    error = span_of(refused(detail="no-matching-rule: principal not allowed"), "connection").error
    assert error == "no-matching-rule: principal not allowed"


def test_a_detail_from_a_peer_is_escaped_and_bounded() -> None:
    error = span_of(refused(detail="\x1b[2J\n" + "x" * 10_000), "connection").error
    assert error.startswith("no-matching-rule: \\x1b[2J\\x0axxx")
    assert len(error) < 600
