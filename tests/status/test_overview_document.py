"""The overview document has the documented keys, bounded lists and valid text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunnel.lazy_dataclass import replace
from tunnel.status.counters import Counters, TunnelGauges
from tunnel.status.histogram import LAG_BOUNDS, ConnectionDurations, Histogram
from tunnel.status.identity_report import IdentityReport, Rotation, TrustDomainReport
from tunnel.status.overview import MAX_LISTED_PEERS, Overview, encode_overview, summarize_listener
from tunnel.status.peer_table import PeerKey, PeerTraffic
from tunnel.status.process_state import Identity, ListenerState, ProcessState, TargetState
from tunnel.status.recent_refusals import RecentRefusal

SERVER = ListenerState("redis", "tcp:0.0.0.0:8443", "localhost:6379", identity=Identity("spiffe://a.test/redis", 2000, 3))
CLIENT = ListenerState("db", "tcp:127.0.0.1:5432", "db.a.test:8443", is_server=False)
DOMAIN = TrustDomainReport("a.test", 2, 9000.0)
IDENTITY = IdentityReport(
    "",
    "SPIFFE Workload API",
    ("redis",),
    "spiffe://a.test/redis",
    "1f",
    1.0,
    2000.0,
    3,
    "",
    (Rotation(5.0, "1f", 2000.0),),
    (DOMAIN,),
)


def overview(*listeners: ListenerState, **fields: Any) -> Overview:
    state = ProcessState(listeners=listeners or (SERVER,)).listening()
    state = fields.pop("state", state)
    made = Overview(
        time=100.5,
        hostname="h",
        version="1.0",
        pid=7,
        started=50.0,
        state=state,
        listeners=tuple(summarize_listener(state, one, Counters(), TunnelGauges()) for one in state.listeners),
        identities=(),
        peers={},
        refusals=(),
        loop_lag=Histogram(LAG_BOUNDS).read(),
        dropped_log_lines=0,
    )
    return replace(made, **fields)


def document(*listeners: ListenerState, **fields: Any) -> dict[str, Any]:
    return json.loads(encode_overview(overview(*listeners, **fields)))  # type: ignore[no-any-return]


def test_the_document_describes_the_process() -> None:
    found = document(dropped_log_lines=4)
    assert list(found) == (
        "time hostname version pid started phase ready problem listeners identities trust_domains peers more_peers refusals "
        "loop_lag dropped_log_lines"
    ).split(" ")
    assert [found[key] for key in ("time", "hostname", "version", "pid", "started", "dropped_log_lines")] == [
        *(100.5, "h", "1.0", 7, 50.0, 4),
    ]
    assert (found["phase"], found["ready"], found["problem"]) == ("listening", True, "")


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (ProcessState(), "initializing"),
        (ProcessState(listeners=(SERVER,)).listening().stopping(), "stopping"),
        (ProcessState(listeners=(replace(SERVER, identity_error="expired"),)).listening(), "expired"),
        (ProcessState(listeners=(replace(SERVER, identity_error="expired"), CLIENT)).listening(), "redis: expired"),
        (ProcessState(listeners=(replace(SERVER, is_stopped=True), CLIENT)).listening(), "stopped: redis"),
    ],
)
def test_the_problem_is_why_the_process_is_not_ready(state: ProcessState, problem: str) -> None:
    found = document(state=state)
    assert (found["ready"], found["problem"]) == (False, problem)


def test_a_listener_has_its_counts_and_limits() -> None:
    counters = Counters(accepted=20, relayed=9, refused=4, dial_failed=2, plaintext=1, accept_errors=5, client_gone=1)
    counters.durations = ConnectionDurations()
    counters.durations.handshake.add(0.001)
    counters.reasons = {"no-matching-rule": 3, "too-many-connections-of-peer": 1, "timeout": 1, "unreachable": 2}
    gauges = TunnelGauges(forwarded=10, returned=20)
    state = ProcessState(listeners=(replace(SERVER, opened=3),)).listening()
    limits = {"connection_limit": 50, "handshakes_in_progress": 2, "handshake_limit": 512}
    made = summarize_listener(state, state.listeners[0], counters, gauges, **limits)
    (found,) = document(state=state, listeners=(made,))["listeners"]
    assert found == {
        "name": "redis",
        "direction": "inbound",
        "listen": "tcp:0.0.0.0:8443",
        "targets": [],
        "ready": True,
        "problem": "",
        "spiffe_id": "spiffe://a.test/redis",
        "not_after": 2000,
        "open": 3,
        "accepted": 20,
        "relayed": 9,
        "refused": 4,
        "failed": 3,  # of 7 without a relay; errors of accept(2) are no connections
        "handshakes": 1,
        "forwarded_bytes": 10,
        "returned_bytes": 20,
        "limits": {"connections": {"used": 3, "max": 50}, "handshakes": {"used": 2, "max": 512}},
    }


@pytest.mark.parametrize(
    ("listener", "problem"),
    [(replace(SERVER, is_stopped=True), "stopped"), (replace(SERVER, identity_error="expired"), "expired"), (SERVER, "")],
)
def test_a_listener_says_why_it_is_not_ready(listener: ListenerState, problem: str) -> None:
    found = document(listener, CLIENT)["listeners"][0]
    assert (found["ready"], found["problem"]) == (not problem, problem)
    state = ProcessState(listeners=(SERVER,)).listening().stopping()
    assert document(state=state)["listeners"][0]["problem"] == "stopping"


def test_a_client_without_an_identity_is_outbound() -> None:
    found = document(CLIENT)["listeners"][0]
    assert (found["direction"], found["spiffe_id"], found["not_after"]) == ("outbound", None, None)
    nameless = document(replace(CLIENT, identity=Identity("", 2000, 1)))["listeners"][0]
    assert (nameless["spiffe_id"], nameless["not_after"]) == (None, 2000)


def test_targets_are_limited_if_there_are_several_listeners() -> None:
    targets = (*(TargetState(str(number), True, 1, 0, "") for number in range(12)), TargetState("bad", False, 0, 2, "refused"))
    alone = document(replace(SERVER, targets=targets))["listeners"][0]["targets"]
    assert alone[0] == {"target": "bad", "healthy": False, "open": 0, "failures": 2, "error": "refused"}
    assert len(alone) == 13
    assert len(document(replace(SERVER, targets=targets), CLIENT)["listeners"][0]["targets"]) == 10


def test_identities_and_their_trust_domains() -> None:
    other = replace(IDENTITY, name="other", trust_domains=(TrustDomainReport("b.test", 1, None), DOMAIN))
    found = document(identities=(IDENTITY, other))
    assert found["identities"][0] == {
        "name": "",
        "source": "SPIFFE Workload API",
        "listeners": ["redis"],
        "subject": "spiffe://a.test/redis",
        "serial": "1f",
        "not_before": 1.0,
        "not_after": 2000.0,
        "generation": 3,
        "problem": "",
        "rotations": [{"time": 5.0, "serial": "1f", "not_after": 2000.0}],
    }
    assert found["trust_domains"] == [
        {"name": "a.test", "authorities": 2, "expires": 9000.0, "identities": ["", "other"]},
        {"name": "b.test", "authorities": 1, "expires": None, "identities": ["other"]},
    ]


def test_peers_with_open_connections_are_first_then_those_with_most_bytes() -> None:
    peers = {
        PeerKey("redis", "idle"): PeerTraffic(1, 0, 1000, 1000, 9.0),
        PeerKey("redis", "quiet"): PeerTraffic(1, 1, 0, 0),
        PeerKey("redis", "busy"): PeerTraffic(3, 1, 5, 6),
    }
    found = document(peers=peers)
    assert [one["peer"] for one in found["peers"]] == ["busy", "quiet", "idle"]
    assert found["peers"][0] == {
        "listener": "redis",
        "direction": "inbound",
        "peer": "busy",
        "open": 1,
        "connections": 3,
        "forwarded_bytes": 5,
        "returned_bytes": 6,
        "last_seen": 0.0,
    }
    assert found["more_peers"] == 0


def test_the_number_of_peers_is_bounded() -> None:
    found = document(peers={PeerKey("redis", str(number)): PeerTraffic(1, 1) for number in range(MAX_LISTED_PEERS + 5)})
    assert (len(found["peers"]), found["more_peers"]) == (MAX_LISTED_PEERS, 5)


def test_a_refusal_has_the_rule_that_would_admit_the_peer() -> None:
    refusal = RecentRefusal(
        20.0,
        "redis",
        True,
        "10.0.0.9",
        "spiffe://a.test/x",
        "refused",
        "no-matching-rule",
        "why",
        "--allow-id x",
        "{ }",
        3,
        10.0,
    )
    assert document(refusals=(refusal,))["refusals"] == [
        {
            "time": 20.0,
            "first_time": 10.0,
            "count": 3,
            "listener": "redis",
            "direction": "inbound",
            "source": "10.0.0.9",
            "peer": "spiffe://a.test/x",
            "outcome": "refused",
            "reason": "no-matching-rule",
            "detail": "why",
            "flag": "--allow-id x",
            "entry": "{ }",
        }
    ]


def test_loop_lag_is_a_cumulative_histogram() -> None:
    lag = Histogram((0.001, 0.01))
    for seconds in (0.0005, 0.005, 0.005, 1.0):
        lag.add(seconds)
    found = document(loop_lag=lag.read())["loop_lag"]
    assert (found["count"], found["buckets"]) == (4, [[0.001, 1], [0.01, 3]])


def test_text_that_is_not_utf_8_is_replaced() -> None:
    found = document(replace(SERVER, listen_address="unix:/run/\udcff", forward_address="é"))["listeners"][0]
    assert found["listen"] == "unix:/run/?"
