"""Ghostunnel's numbers, exactly when they change, and the timers."""

from __future__ import annotations

import errno

import pytest
import test_tunnel
from test_tunnel import (
    NAMED,
    PEER_CONTEXTS,
    TLS13,
    Peer,
    Side,
    Stage,
    Stages,
    carried,
    dialled,
    hang_up,
    with_listener,
)

from tests.support.socket_pairs import received
from tunnel.authz.rules import IdRule
from tunnel.errors import TargetError, TargetFault
from tunnel.net.address import UnixAddress
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.status import metric_definitions
from tunnel.status.counters import Counters
from tunnel.status.durations import LONG, SHORT, DurationMetric
from tunnel.status.runtime import Runtime
from tunnel.status.snapshot import MetricsSource

stages = test_tunnel.stages

GHOSTUNNELS = (
    metric_definitions.OPEN,
    metric_definitions.ACCEPT_TOTAL,
    metric_definitions.ACCEPT_SUCCESS,
    metric_definitions.ACCEPT_ERROR,
    metric_definitions.ACCEPT_TIMEOUT,
    metric_definitions.CONN_TIMEOUT,
    metric_definitions.CONN_ERROR,
)


def timed(stage: Stage) -> Stage:
    stage.tunnel.counters.handshake = DurationMetric(SHORT, clock=stage.clock)
    stage.tunnel.counters.lifetime = DurationMetric(LONG, clock=stage.clock)
    return stage


def numbers(stage: Stage) -> dict[str, int | float]:
    """Those of ghostunnel's names that are not 0; of the timers, how many."""
    readings = MetricsSource(stage.tunnel.counters, stage.tunnel.gauges, Runtime()).snapshot().readings
    found = {one.name: one.value for one in readings if one.metric in GHOSTUNNELS and one.value}
    for metric, timer in (
        (metric_definitions.HANDSHAKE, stage.tunnel.counters.handshake),
        (metric_definitions.LIFETIME, stage.tunnel.counters.lifetime),
    ):
        if timer is not None and timer.distribution().count:
            found[metric.name] = timer.distribution().count
    return found


def lasted(timer: DurationMetric | None) -> tuple[int, ...]:
    assert timer is not None
    return timer.distribution().sample.values


def test_a_carried_connection_is_open_and_then_a_success_that_lasted(stages: Stages) -> None:
    stage = timed(stages()).serve()
    sock = stage.connect()
    assert numbers(stage) == {"conn.open": 1, "accept.total": 1}, "open before the handshake"
    stage.clock.now += 0.25
    peer = Peer(stage, sock).shake()
    backend = stage.accepted_by_backend()
    assert backend is not None
    assert numbers(stage) == {"conn.open": 1, "accept.total": 1, "accept.success": 1, "conn.handshake": 1}
    stage.clock.now += 1.5
    hang_up(stage, peer, backend)
    assert numbers(stage) == {"accept.total": 1, "accept.success": 1, "conn.handshake": 1, "conn.lifetime": 1}
    assert lasted(stage.tunnel.counters.handshake) == (250_000_000,)
    assert lasted(stage.tunnel.counters.lifetime) == (1_750_000_000,)


def refused_peer(stage: Stage) -> None:
    Peer(stage, stage.serve(rules=(IdRule(parse_spiffe_id("spiffe://a.test/other")),)).connect()).shake()


def slow_peer(stage: Stage) -> None:
    stage.serve().connect().send(Side(PEER_CONTEXTS[False, TLS13]).shake()[:20])
    stage.turn()
    stage.later(11)


def health_check(stage: Stage) -> None:
    stage.serve().connect().close()
    stage.turn()


def no_target(stage: Stage) -> None:
    Peer(stage, stage.serve().connect()).shake()
    if stage.asked:
        stage.asked[0][1](TargetError(TargetFault.RESOLVE, "not found"))
    stage.turn()


def slow_target(stage: Stage) -> None:
    Peer(stage, stage.serve().connect()).shake()
    stage.later(11)


def no_identity(stage: Stage) -> None:
    stage.accept().connect()


FAILED = {"accept.total": 1, "accept.error": 1, "conn.lifetime": 1}


@pytest.mark.parametrize(
    ("happens", "expected", "reasons"),
    [
        (refused_peer, FAILED | {"conn.handshake": 1}, {"no-matching-rule": 1}),
        (slow_peer, FAILED | {"conn.handshake": 1, "accept.timeout": 1}, {"handshake-timeout": 1}),
        (health_check, FAILED | {"conn.handshake": 1}, {}),
        (no_target, FAILED | {"conn.handshake": 1}, {"name-not-resolved": 1}),
        (slow_target, FAILED | {"conn.handshake": 1}, {"timeout": 1}),
        (no_identity, FAILED, {}),
    ],
)
def test_a_server_counts_what_is_not_carried_as_one_error(stages: Stages, happens, expected, reasons) -> None:
    stage = timed(stages(target=NAMED))
    happens(stage)
    assert numbers(stage) == expected
    assert stage.tunnel.counters.reasons == reasons


def test_a_connection_that_cannot_be_accepted_is_an_error_and_no_connection(stages: Stages) -> None:
    stage = timed(stages())
    with_listener(stage, errno.EMFILE)
    stage.turn()
    assert numbers(stage) == {"accept.error": 1}


def test_a_client_times_no_handshake_and_its_targets_silence_is_no_accept_timeout(stages: Stages) -> None:
    stage = timed(stages(is_server=False)).serve()
    dialled(stage)
    stage.later(11)
    assert numbers(stage) == FAILED
    assert stage.tunnel.counters.reasons == {"handshake-timeout": 1}


def test_a_client_counts_what_it_carries(stages: Stages) -> None:
    stage = timed(stages(is_server=False)).serve()
    program, server = dialled(stage)
    server.shake()
    stage.turn()
    program.send(b"four")
    stage.turn()
    server.say(b"seven..")
    assert received(program) == b"seven.."
    standing = stage.tunnel.gauges()
    assert (standing.opened, standing.forwarded, standing.returned) == (1, 4, 7)
    assert numbers(stage) == {"conn.open": 1, "accept.total": 1, "accept.success": 1}


@pytest.mark.parametrize("limit", ["lifetime", "close"])
def test_a_connection_that_a_limit_ends_is_one_timeout(stages: Stages, limit: str) -> None:
    stage = timed(stages(max_conn_lifetime=100 if limit == "lifetime" else 0, close_timeout=60)).serve()
    peer, _backend = carried(stage)
    if limit == "close":
        peer.end()
    stage.later(101)
    assert numbers(stage) == {
        "accept.total": 1,
        "accept.success": 1,
        "conn.timeout": 1,
        "conn.handshake": 1,
        "conn.lifetime": 1,
    }


def test_a_connection_that_ends_inside_a_record_is_an_error_of_the_connection(stages: Stages) -> None:
    stage = stages().serve()
    peer, _backend = carried(stage)
    peer.socket.send(peer.side.seal(b"cut short")[:9])
    peer.socket.close()
    stage.turn()
    assert numbers(stage) == {"accept.total": 1, "accept.success": 1, "conn.error": 1}


def test_bytes_are_counted_while_they_flow_and_stay_counted(stages: Stages) -> None:
    stage = stages().serve()
    peer, backend = carried(stage)
    peer.say(b"question")
    backend.send(b"answers")
    stage.turn()
    seen = stage.tunnel.gauges()
    assert (seen.forwarded, seen.returned) == (8, 7)
    hang_up(stage, peer, backend)
    seen = stage.tunnel.gauges()
    assert (seen.opened, seen.forwarded, seen.returned) == (0, 8, 7)


def test_the_identity_in_use_is_shown_with_its_number_and_its_end(stages: Stages) -> None:
    stage = stages()
    assert stage.tunnel.gauges().expiry is None
    stage.serve(number=3, lasts=3600)
    seen = stage.tunnel.gauges()
    assert (seen.generation, seen.expiry) == (3, stage.wall + 3600)


def test_without_timers_nothing_is_timed(stages: Stages) -> None:
    stage = stages(target=UnixAddress("/nowhere/at/all")).serve()
    Peer(stage, stage.connect()).shake()
    assert numbers(stage) == {"accept.total": 1, "accept.error": 1}
    assert stage.tunnel.counters == Counters(accepted=1, dial_failed=1, reasons={"connection-refused": 1}), (
        "no timer has come by itself"
    )
