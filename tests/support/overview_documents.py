"""Overview documents, as `GET /_overview` returns them."""

from __future__ import annotations

import copy
from typing import Any

NOW = 1764412800.0
_SAMPLE: dict[str, Any] = {
    "time": NOW,
    "hostname": "cache1",
    "version": "0.1.0",
    "pid": 4711,
    "started": NOW - 12400,
    "phase": "listening",
    "ready": True,
    "problem": "",
    "listeners": [
        {
            "name": "redis",
            "direction": "inbound",
            "listen": "tcp:0.0.0.0:8443",
            "targets": [{"target": "localhost:6379", "healthy": True, "open": 3, "failures": 0, "error": ""}],
            "ready": True,
            "problem": "",
            "spiffe_id": "spiffe://example.org/redis",
            "not_after": NOW + 3200,
            "open": 3,
            "accepted": 1042,
            "relayed": 1030,
            "refused": 11,
            "failed": 1,
            "handshakes": 1031,
            "forwarded_bytes": 48_200_000,
            "returned_bytes": 1_930_000_000,
            "limits": {"connections": {"used": 3, "max": 1000}, "handshakes": {"used": 0, "max": 512}},
        },
        {
            "name": "db",
            "direction": "outbound",
            "listen": "unix:/run/db.sock",
            "targets": [
                {"target": "db1.example.org:8443", "healthy": True, "open": 1, "failures": 0, "error": ""},
                {"target": "db2.example.org:8443", "healthy": False, "open": 0, "failures": 7, "error": "connection refused"},
            ],
            "ready": True,
            "problem": "",
            "spiffe_id": "spiffe://example.org/redis",
            "not_after": NOW + 3200,
            "open": 1,
            "accepted": 12,
            "relayed": 12,
            "refused": 0,
            "failed": 0,
            "handshakes": 12,
            "forwarded_bytes": 900,
            "returned_bytes": 53_000,
            "limits": {"connections": {"used": 1, "max": 0}, "handshakes": {"used": 0, "max": 512}},
        },
    ],
    "identities": [
        {
            "name": "",
            "source": "SPIFFE Workload API",
            "listeners": ["redis", "db"],
            "subject": "spiffe://example.org/redis",
            "serial": "1f3a90cc",
            "not_before": NOW - 400,
            "not_after": NOW + 3200,
            "generation": 4,
            "problem": "",
            "rotations": [
                {"time": NOW - 400, "serial": "1f3a90cc", "not_after": NOW + 3200},
                {"time": NOW - 12400, "serial": "77aa01", "not_after": NOW - 8800},
            ],
        }
    ],
    "trust_domains": [
        {"name": "example.org", "authorities": 2, "expires": NOW + 86400 * 5, "identities": [""]},
        {"name": "partner.org", "authorities": 1, "expires": NOW + 86400 * 90, "identities": [""]},
    ],
    "peers": [
        {
            "listener": "redis",
            "direction": "inbound",
            "peer": "spiffe://example.org/web",
            "open": 2,
            "connections": 1020,
            "forwarded_bytes": 48_000_000,
            "returned_bytes": 1_900_000_000,
            "last_seen": NOW - 0.2,
        },
        {
            "listener": "redis",
            "direction": "inbound",
            "peer": "spiffe://example.org/billing",
            "open": 1,
            "connections": 10,
            "forwarded_bytes": 200_000,
            "returned_bytes": 30_000_000,
            "last_seen": NOW - 40,
        },
        {
            "listener": "db",
            "direction": "outbound",
            "peer": "spiffe://example.org/db",
            "open": 1,
            "connections": 12,
            "forwarded_bytes": 900,
            "returned_bytes": 53_000,
            "last_seen": NOW - 7300,
        },
    ],
    "more_peers": 0,
    "refusals": [
        {
            "time": NOW - 15,
            "first_time": NOW - 600,
            "count": 10,
            "listener": "redis",
            "direction": "inbound",
            "source": "10.0.0.9",
            "peer": "spiffe://example.org/cron",
            "outcome": "refused",
            "reason": "no-matching-rule",
            "detail": "unauthorized: invalid principal, or principal not allowed: spiffe://example.org/cron",
            "flag": "--allow-id spiffe://example.org/cron",
            "entry": '{ allow = "spiffe://example.org/cron" }',
        },
        {
            "time": NOW - 900,
            "first_time": NOW - 900,
            "count": 1,
            "listener": "redis",
            "direction": "inbound",
            "source": "10.0.0.77",
            "peer": "",
            "outcome": "failed",
            "reason": "tls-failure",
            "detail": "the client does not use TLS",
            "flag": "",
            "entry": "",
        },
    ],
    "loop_lag": {"count": 49600, "seconds": 9.92, "buckets": [[0.0005, 48000], [0.001, 49500], [0.0025, 49600]]},
    "dropped_log_lines": 0,
}


def sample_document(**changes: Any) -> dict[str, Any]:
    """A document of a proxy with two listeners, with some keys changed."""
    return {**copy.deepcopy(_SAMPLE), **changes}


def later_document(seconds: float = 2.0) -> dict[str, Any]:
    """The sample some seconds later: 5 connections, 2 refusals and some bytes more, and one loop turn of 0.6 ms."""
    document = sample_document(time=NOW + seconds)
    redis = document["listeners"][0]
    redis.update(open=5, accepted=1047, relayed=1033, refused=13)
    redis["forwarded_bytes"] += 4000
    redis["returned_bytes"] += 2_000_000
    web = document["peers"][0]
    web.update(connections=1023, open=4)
    web["forwarded_bytes"] += 3000
    document["loop_lag"] = {"count": 49601, "seconds": 9.9206, "buckets": [[0.0005, 48000], [0.001, 49501], [0.0025, 49601]]}
    return document
