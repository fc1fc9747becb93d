"""The tables have each peer's cost, compare ours with the cheapest one, and say which goals are reached."""

from __future__ import annotations

import json

import pytest

from bench.goals import GOALS, Goal, judge
from bench.peers import PEERS
from bench.report import Result, encode_result, format_result
from bench.run import is_measured
from bench.sample import FIELDS, Sample
from bench.workloads import WORKLOADS, Workload

HANDSHAKE = next(workload for workload in WORKLOADS if workload.name == "handshake")


def sample(cost: float, **fields: float) -> Sample:
    return Sample(cost * 0.7, cost * 0.3, 0.5, 0.0, **fields)  # type: ignore[arg-type]


def result(**costs: float) -> Result:
    """Two rounds; the second one costs everybody twice as much."""
    made = Result({}, dict.fromkeys(costs, ("1.0", "OpenSSL")), [HANDSHAKE])
    for peer, cost in costs.items():
        made.samples["handshake", peer] = [sample(cost, rate=5.0, p50=1.5), sample(2 * cost, rate=5.0, p50=1.5)]
    return made


def test_each_peer_has_a_row_with_its_ratio_to_the_first_its_rate_and_its_times() -> None:
    title = "full handshake, 1 byte echoed, close, us"
    lines = format_result(result(before=1000.0, tunnel=2000.0)).splitlines()
    assert lines[-2:] == [
        f"| {title} | before | 1500 = 1050 + 450 |  | 5 | 1.5 |  |  | 0 |",
        "|  | tunnel | 3000 = 2100 + 900 | 2.000 (2.00-2.00) | 5 | 1.5 |  |  | 0 |",
    ]


def test_ours_is_compared_with_the_cheapest_other_proxy_that_has_tls() -> None:
    table = format_result(result(haproxy=1000.0, ghostunnel=800.0, tcp=100.0, disk=10.0, tunnel=600.0))
    assert "| 1500 | 1200 | 150 | 15.0 | 900 | 0.750 (0.75-0.75) ghostunnel |" in table
    assert "| cost <= 0.8 of cheapest peer | 0.75 (0.75-0.75) of ghostunnel: reached |" in table
    assert "| cost <= 0.8 of cheapest peer | 1 (1-1) of haproxy: MISSED |" in format_result(result(haproxy=1.0, tunnel=1.0))


def test_a_proxy_that_failed_is_named_and_compared_with_nothing() -> None:
    made = result(haproxy=1000.0, tunnel=600.0)
    made.samples.pop(("handshake", "haproxy"))
    made.failures["handshake", "haproxy"] = "connect: refused"
    table = format_result(made)
    assert "handshake through haproxy failed: connect: refused" in table
    assert "| full handshake, 1 byte echoed, close, us |  | 900 |  |" in table


def test_there_are_goals_only_beside_another_proxy() -> None:
    assert "goal" not in format_result(result(before=1.0, tunnel=1.0))
    assert encode_result(result(before=1.0, tunnel=1.0))["goals"] == []


@pytest.mark.parametrize(
    ("goal", "is_reached"),
    [
        (Goal("handshake", "cost", 1.0, "tcp"), False),
        (Goal("handshake", "cost", 9.0, "tcp"), True),
        (Goal("handshake", "cost", 1000.0, ""), True),
        (Goal("handshake", "cost", 899.0, ""), False),
        (Goal("handshake", "errors", 0, ""), True),
        (Goal("handshake", "rate", 1.8, "workers1", is_minimum=True), True),
        (Goal("handshake", "rate", 2.2, "workers1", is_minimum=True), False),
    ],
)
def test_a_goal_can_be_absolute_relative_to_a_tcp_relay_or_to_one_worker(goal: Goal, is_reached: bool) -> None:
    samples = result(tcp=100.0, tunnel=600.0).samples
    samples["handshake", "workers1"], samples["handshake", "workers2"] = [sample(1, rate=10.0)], [sample(1, rate=20.0)]
    assert [verdict.is_reached for verdict in judge(samples, [goal])] == [is_reached]


def test_what_was_not_measured_has_no_verdict() -> None:
    assert judge({}, GOALS) == []
    assert judge(result(tunnel=1.0).samples, [Goal("handshake", "cost", 1.0)]) == []


def test_every_goal_is_about_a_workload_and_a_field_of_a_sample() -> None:
    assert {goal.workload for goal in GOALS} <= {workload.name for workload in WORKLOADS}
    assert {goal.field for goal in GOALS} <= set(FIELDS)


def test_the_complete_result_can_be_written_as_json() -> None:
    document = json.loads(json.dumps(encode_result(result(haproxy=1000.0, tunnel=600.0))))
    assert [row["peer"] for row in document["results"]] == ["haproxy", "tunnel"]
    assert document["results"][0]["samples"][1]["user"] == pytest.approx(1400.0)
    assert document["goals"][0]["reached"]


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_what_adds_to_connections_is_measured_by_connections(workload: Workload) -> None:
    for peer in PEERS.values():
        if workload.mode == "scaling" or peer.name.startswith("workers"):
            assert is_measured(workload, peer) == (workload.mode == "scaling" and peer.name in ("workers1", "workers2"))
        elif workload.mode == "rotations":
            assert is_measured(workload, peer) == (peer.name in ("ghostunnel", "tunnel"))
        else:
            assert is_measured(workload, peer) == (
                peer.name not in ("status", "header") or workload.mode in ("handshakes", "start")
            )
