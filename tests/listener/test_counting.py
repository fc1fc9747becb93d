"""Ghostunnel's counters change at the right time, and so do the timers."""

from __future__ import annotations

import errno
from contextlib import suppress

import pytest

from tests.support.socket_pairs import received
from tests.support.tunnel_harness import (
    NAMED,
    PEER_CONTEXTS,
    TLS12,
    TLS13,
    Harnesses,
    Peer,
    Side,
    TunnelHarness,
    carried,
    dialled,
    generation,
    hang_up,
    with_listener,
)
from tunnel.authz.rules import IdRule
from tunnel.errors import TargetError, TargetFault, TlsError
from tunnel.net.address import UnixAddress
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.status import metric_definitions
from tunnel.status.counters import Counters
from tunnel.status.durations import LONG, SHORT, DurationMetric
from tunnel.status.histogram import ConnectionDurations
from tunnel.status.runtime import Runtime
from tunnel.status.snapshot import Measurement, MetricsSource

GHOSTUNNELS = (
    metric_definitions.OPEN,
    metric_definitions.ACCEPT_TOTAL,
    metric_definitions.ACCEPT_SUCCESS,
    metric_definitions.ACCEPT_ERROR,
    metric_definitions.ACCEPT_TIMEOUT,
    metric_definitions.CONN_TIMEOUT,
    metric_definitions.CONN_ERROR,
)


def timed(harness: TunnelHarness) -> TunnelHarness:
    harness.tunnel.counters.handshake = DurationMetric(SHORT, clock=harness.clock)
    harness.tunnel.counters.lifetime = DurationMetric(LONG, clock=harness.clock)
    return harness


def numbers(harness: TunnelHarness) -> dict[str, int | float]:
    """Return ghostunnel's metrics that are not 0; of the timers, the count."""
    source = MetricsSource(lambda: Measurement(harness.tunnel.counters, harness.tunnel.gauges()), Runtime())
    readings = source.snapshot().readings
    found = {one.name: one.value for one in readings if one.metric in GHOSTUNNELS and one.value}
    for metric, timer in (
        (metric_definitions.HANDSHAKE, harness.tunnel.counters.handshake),
        (metric_definitions.LIFETIME, harness.tunnel.counters.lifetime),
    ):
        if timer is not None and timer.distribution().count:
            found[metric.name] = timer.distribution().count
    return found


def lasted(timer: DurationMetric | None) -> tuple[int, ...]:
    assert timer is not None
    return timer.distribution().sample.values


def test_a_carried_connection_is_open_and_then_a_success_that_lasted(harnesses: Harnesses) -> None:
    harness = timed(harnesses()).serve()
    sock = harness.connect()
    assert numbers(harness) == {"conn.open": 1, "accept.total": 1}, "open before the handshake"
    harness.clock.now += 0.25
    peer = Peer(harness, sock).shake()
    backend = harness.accepted_by_backend()
    assert backend is not None
    assert numbers(harness) == {"conn.open": 1, "accept.total": 1, "accept.success": 1, "conn.handshake": 1}
    harness.clock.now += 1.5
    hang_up(harness, peer, backend)
    assert numbers(harness) == {"accept.total": 1, "accept.success": 1, "conn.handshake": 1, "conn.lifetime": 1}
    assert lasted(harness.tunnel.counters.handshake) == (250_000_000,)
    assert lasted(harness.tunnel.counters.lifetime) == (1_750_000_000,)


def refused_peer(harness: TunnelHarness) -> None:
    Peer(harness, harness.serve(rules=(IdRule(parse_spiffe_id("spiffe://a.test/other")),)).connect()).shake()


def slow_peer(harness: TunnelHarness) -> None:
    harness.serve().connect().send(Side(PEER_CONTEXTS[False, TLS13]).shake()[:20])
    harness.turn()
    harness.later(11)


def health_check(harness: TunnelHarness) -> None:
    harness.serve().connect().close()
    harness.turn()


def no_target(harness: TunnelHarness) -> None:
    Peer(harness, harness.serve().connect()).shake()
    if harness.asked:
        harness.asked[0][1](TargetError(TargetFault.RESOLVE, "not found"))
    harness.turn()


def slow_target(harness: TunnelHarness) -> None:
    Peer(harness, harness.serve().connect()).shake()
    harness.later(11)


def no_identity(harness: TunnelHarness) -> None:
    harness.accept().connect()


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
def test_a_server_counts_what_is_not_carried_as_one_error(harnesses: Harnesses, happens, expected, reasons) -> None:
    harness = timed(harnesses(target=NAMED))
    happens(harness)
    assert numbers(harness) == expected
    assert harness.tunnel.counters.reasons == reasons


def test_a_connection_that_cannot_be_accepted_is_an_error_and_no_connection(harnesses: Harnesses) -> None:
    harness = timed(harnesses())
    with_listener(harness, errno.EMFILE)
    harness.turn()
    assert numbers(harness) == {"accept.error": 1}


def test_a_client_times_no_handshake_and_its_targets_silence_is_no_accept_timeout(harnesses: Harnesses) -> None:
    harness = timed(harnesses(is_server=False)).serve()
    dialled(harness)
    harness.later(11)
    assert numbers(harness) == FAILED
    assert harness.tunnel.counters.reasons == {"handshake-timeout": 1}


def test_a_client_counts_what_it_carries(harnesses: Harnesses) -> None:
    harness = timed(harnesses(is_server=False)).serve()
    program, server = dialled(harness)
    server.shake()
    harness.turn()
    program.send(b"four")
    harness.turn()
    server.say(b"seven..")
    assert received(program) == b"seven.."
    standing = harness.tunnel.gauges()
    assert (standing.opened, standing.forwarded, standing.returned) == (1, 4, 7)
    assert numbers(harness) == {"conn.open": 1, "accept.total": 1, "accept.success": 1}


@pytest.mark.parametrize("limit", ["lifetime", "close"])
def test_a_connection_that_a_limit_ends_is_one_timeout(harnesses: Harnesses, limit: str) -> None:
    harness = timed(harnesses(max_conn_lifetime=100 if limit == "lifetime" else 0, close_timeout=60)).serve()
    peer, _backend = carried(harness)
    if limit == "close":
        peer.end()
    harness.later(101)
    assert numbers(harness) == {
        "accept.total": 1,
        "accept.success": 1,
        "conn.timeout": 1,
        "conn.handshake": 1,
        "conn.lifetime": 1,
    }


def test_a_connection_that_ends_inside_a_record_is_an_error_of_the_connection(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    peer, _backend = carried(harness)
    peer.socket.send(peer.side.seal(b"cut short")[:9])
    peer.socket.close()
    harness.turn()
    assert numbers(harness) == {"accept.total": 1, "accept.success": 1, "conn.error": 1}


def test_bytes_are_counted_while_they_flow_and_stay_counted(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    peer, backend = carried(harness)
    peer.say(b"question")
    backend.send(b"answers")
    harness.turn()
    seen = harness.tunnel.gauges()
    assert (seen.forwarded, seen.returned) == (8, 7)
    hang_up(harness, peer, backend)
    seen = harness.tunnel.gauges()
    assert (seen.opened, seen.forwarded, seen.returned) == (0, 8, 7)


def test_the_identity_in_use_is_shown_with_its_number_and_its_end(harnesses: Harnesses) -> None:
    harness = harnesses()
    assert harness.tunnel.gauges().expiry is None
    harness.serve(number=3, lasts=3600)
    seen = harness.tunnel.gauges()
    assert (seen.generation, seen.expiry) == (3, harness.wall + 3600)


def test_without_timers_nothing_is_timed(harnesses: Harnesses) -> None:
    harness = harnesses(target=UnixAddress("/nowhere/at/all")).serve()
    Peer(harness, harness.connect()).shake()
    assert numbers(harness) == {"accept.total": 1, "accept.error": 1}
    assert harness.tunnel.counters == Counters(accepted=1, dial_failed=1, reasons={"connection-refused": 1}), (
        "no timer has come by itself"
    )


def test_durations_are_counted_when_they_are_known(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    durations = harness.tunnel.counters.durations = ConnectionDurations()
    peer, backend = carried(harness, version=TLS12)

    def counts() -> list[int]:
        read = durations.read()
        return [read.handshake.count, read.dial.count, read.connection.count]

    assert counts() == [1, 1, 0]
    harness.later(20)
    hang_up(harness, peer, backend)
    assert counts() == [1, 1, 1]
    assert durations.read().connection.total == pytest.approx(20)


def test_a_client_counts_the_handshakes_with_its_target(harnesses: Harnesses) -> None:
    harness = harnesses(is_server=False).serve()
    durations = harness.tunnel.counters.durations = ConnectionDurations()
    _program, server = dialled(harness)
    assert (durations.read().dial.count, durations.read().handshake.count) == (1, 0)
    server.shake()
    assert durations.read().handshake.count == 1


def test_the_durations_of_what_fails_are_not_counted(harnesses: Harnesses) -> None:
    harness = harnesses(target=UnixAddress("/nowhere/at/all")).serve(rules=(IdRule(parse_spiffe_id("spiffe://a.test/other")),))
    durations = harness.tunnel.counters.durations = ConnectionDurations()
    with suppress(TlsError):
        Peer(harness, harness.connect()).shake()
    harness.tunnel.swap(generation(2))
    Peer(harness, harness.connect()).shake()
    read = durations.read()
    assert (read.handshake.count, read.dial.count, read.connection.count) == (1, 0, 0)
