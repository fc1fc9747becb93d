"""The table tells each peer's cost, and compares it with the first one's."""

from __future__ import annotations

import pytest

from bench.peers import PEERS
from bench.report import Result, format_result
from bench.run import is_measured
from bench.workloads import WORKLOADS, Sample

HANDSHAKE = next(workload for workload in WORKLOADS if workload.name == "handshake")


def result(*peers: str) -> Result:
    """Each peer costs twice as much as the one before it."""
    made = Result({}, dict.fromkeys(peers, ("1.0", "OpenSSL")), [HANDSHAKE])
    for number, peer in enumerate(peers):
        cost = 1000.0 * 2**number
        made.samples["handshake", peer] = [Sample(cost * 0.7, cost * 0.3, 0.5, 0.0), Sample(cost * 1.4, cost * 0.6, 0.5, 0.0)]
    return made


def test_each_peer_has_a_row_with_its_ratio_to_the_first_and_the_verdict() -> None:
    title = "full handshake, 1 byte echoed, close, us"
    assert format_result(result("haproxy", "tunnel", "disk")).splitlines()[-3:] == [
        f"| {title} | haproxy | 1500 = 1050 + 450 |  |  |",
        "|  | tunnel | 3000 = 2100 + 900 | 2.000 (2.00-2.00) | MISSED (<= 1) |",
        "|  | disk | 6000 = 4200 + 1800 | 4.000 (4.00-4.00) | MISSED (<= 1) |",
    ]


def test_the_target_is_for_haproxy_only() -> None:
    table = format_result(result("before", "tunnel"))
    assert "target" not in table
    assert table.splitlines()[-1] == "|  | tunnel | 3000 = 2100 + 900 | 2.000 (2.00-2.00) |"


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_what_adds_to_connections_is_measured_by_connections(workload: object) -> None:
    assert isinstance(workload, type(HANDSHAKE))
    for peer in PEERS.values():
        is_whole = peer.name in ("haproxy", "tunnel", "disk", "unobserved", "observed")
        assert is_measured(workload, peer) == (is_whole or workload.mode in ("handshakes", "start"))
