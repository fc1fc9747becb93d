"""The encoding of messages between parent and workers."""

from __future__ import annotations

import os
import pickle
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.cert_factory import authority
from tests.support.connection_records import relayed
from tunnel.authz.peer import Peer
from tunnel.listener.connection_log import Retry
from tunnel.listener.connection_record import ConnectionOutcome
from tunnel.log import Category
from tunnel.pkix.certificate import parse_certificate
from tunnel.relay.close_reason import CloseReason
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.status.counters import Counters, timed_counters
from tunnel.status.histogram import LAG_BOUNDS, ConnectionDurations, Histogram
from tunnel.status.peer_table import PeerKey, PeerTraffic
from tunnel.status.process_state import PlainSource, PlaintextState
from tunnel.workers.codec import decode_limited, decode_trusted, encode
from tunnel.workers.messages import (
    FROM_WORKER,
    Batch,
    ConnectionEvent,
    LogLine,
    Report,
    Started,
    TargetResult,
    TunnelReport,
)


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()],
)
def test_a_private_key_arrives_encoded(key: ec.EllipticCurvePrivateKey) -> None:
    assert decode_trusted(encode([key, key])) == [key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())] * 2


def test_a_certificate_is_sent_as_der_and_parsed_again() -> None:
    certificate = parse_certificate(authority().der)
    data = encode(certificate)
    assert decode_trusted(data) == certificate
    assert data.count(certificate.subject.der) == certificate.der.count(certificate.subject.der)


def test_a_message_of_a_worker_has_known_types_only() -> None:
    decode = decode_limited(FROM_WORKER)
    assert decode(encode(Started())) == Started()
    assert decode(encode(TargetResult(1, "x", None))) == TargetResult(1, "x", None)


PEER = Peer(
    "CN=x",
    parse_spiffe_id("spiffe://a.test/x"),
    b"leaf",
    b"key",
    "x",
    ("unit",),
    ("a.test",),
    (ip_address("192.0.2.1"), ip_address("2001:db8::1")),
    ("spiffe://a.test/x",),
)


@pytest.mark.parametrize("outcome", ConnectionOutcome)
@pytest.mark.parametrize("close_reason", [None, *CloseReason])
def test_whatever_a_peer_has_shown_its_record_arrives(outcome: ConnectionOutcome, close_reason: CloseReason | None) -> None:
    """A record that is refused would end the worker, with the connections of others."""
    record = relayed(outcome=outcome, close_reason=close_reason, peer=PEER)
    retry = Retry(1795309702.25, "tcp:192.0.2.1:1", "tcp:192.0.2.2:2", "refused", "why")
    entries = [ConnectionEvent(1, record, is_end=True), ConnectionEvent(1, retry, is_end=False)]
    lines = [LogLine(1.0, "text", category, "a=b") for category in Category]
    assert decode_limited(FROM_WORKER)(encode(Batch([*entries, *lines]))) == Batch([*entries, *lines])


def test_counts_arrive() -> None:
    counters = Counters(accepted=3, other_ends={"shutdown": 2}, durations=ConnectionDurations())
    assert counters.durations is not None
    counters.durations.dial.add(0.5)
    timers = timed_counters()
    assert timers.handshake is not None
    timers.handshake.update(1000)
    source, traffic = PlainSource("192.0.2.1", 1, 2.0), (PeerKey("a", "b"), PeerTraffic(1))
    tunnel = TunnelReport(counters, 1, 2, 3, PlaintextState(1, 2, (source,), 3), 5, (traffic,), {"x": 1}, 0)
    totals = timers.handshake.totals()
    report = Report(1, {1: tunnel}, {0: (totals, totals)}, 2, 3, Histogram(LAG_BOUNDS))
    found = decode_limited(FROM_WORKER)(encode(report))
    assert isinstance(found, Report)
    assert found.tunnels[1].counters.durations.read() == counters.durations.read()  # type: ignore[union-attr]
    assert found.timers == report.timers
    assert found.tunnels[1].peers == (traffic,)


@pytest.mark.parametrize(
    "value", [os.system, datetime.now(UTC).tzinfo, pickle.loads, parse_certificate], ids=["system", "zone", "loads", "parse"]
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(pickle.UnpicklingError, match="unexpected type"):
        decode_limited(FROM_WORKER)(pickle.dumps(value))
