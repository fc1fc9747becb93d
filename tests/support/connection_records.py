"""Records of ended connections, as their sessions make them."""

from __future__ import annotations

from typing import Any

from tunnel.authz.peer import Peer
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.relay.close_reason import CloseReason
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.tls.negotiated import TlsParameters

WEB = Peer("O=SPIRE,C=US", parse_spiffe_id("spiffe://example.org/web"))
TLS = TlsParameters("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768")


def relayed(**fields: Any) -> ConnectionRecord:
    """A connection of a client that was relayed for ten seconds: handshake from 1.0 to 1.5, dial from 1.5 to 2.25."""
    given: dict[str, Any] = {
        "outcome": ConnectionOutcome.RELAYED,
        "is_server": True,
        "listener": "tcp:192.0.2.1:8443",
        "source": "tcp:10.0.0.7:40000",
        "seconds": 10.0,
        "time": 1795309702.25,
        "listener_name": "redis",
        "target": "tcp:127.0.0.1:6379",
        "target_name": "localhost:6379",
        "peer": WEB,
        "rule": "id:spiffe://example.org/web",
        "tls": TLS,
        "handshake_began": 1.0,
        "handshake_seconds": 0.5,
        "dial_began": 1.5,
        "dial_seconds": 0.75,
        "forwarded": 12,
        "returned": 34,
        "close_reason": CloseReason.CLOSED,
        **fields,
    }
    return ConnectionRecord(**given)


def outbound(**fields: Any) -> ConnectionRecord:
    """A connection of a client listener: dial from 0.25 to 1.0, handshake from 1.0 to 1.5."""
    times = {"dial_began": 0.25, "dial_seconds": 0.75, "handshake_began": 1.0, "handshake_seconds": 0.5}
    ends = {"listener": "tcp:127.0.0.1:6379", "source": "tcp:127.0.0.1:50000", "target": "tcp:[2001:db8::5]:8443"}
    return relayed(**{"is_server": False, "target_name": "cache.example.org:8443", **times, **ends, **fields})


def refused(**fields: Any) -> ConnectionRecord:
    """A client that no rule admits: its handshake failed after two seconds."""
    reason = {"reason": "no-matching-rule", "detail": "principal not allowed", "rule": "", "seconds": 2.0}
    missing: dict[str, Any] = {"tls": None, "target": "", "close_reason": None, "forwarded": 0, "returned": 0}
    times = {"handshake_seconds": None, "dial_began": None, "dial_seconds": None}
    return relayed(**{"outcome": ConnectionOutcome.REFUSED, **reason, **missing, **times, **fields})


def dial_failed(**fields: Any) -> ConnectionRecord:
    """A client that was admitted, and whose target refused the connection."""
    reason = {"reason": "connection-refused", "detail": "tcp:127.0.0.1:6379: connection refused", "seconds": 2.0}
    missing: dict[str, Any] = {"target": "", "close_reason": None, "forwarded": 0, "returned": 0, "dial_seconds": None}
    return relayed(**{"outcome": ConnectionOutcome.DIAL_FAILED, **reason, **missing, **fields})
