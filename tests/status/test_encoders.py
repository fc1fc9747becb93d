"""JSON and Graphite lines have the format that ghostunnel's users parse."""

from __future__ import annotations

import json

import pytest

from tests.support.known_metrics import EXPIRY, NOW, known_snapshot, known_source
from tunnel.status import metric_definitions
from tunnel.status.counters import TunnelGauges, timed_counters
from tunnel.status.encoders import encode_graphite, encode_json
from tunnel.status.metric_definitions import Kind, Metric
from tunnel.status.snapshot import Measurement

EVERY = [one for one in vars(metric_definitions).values() if isinstance(one, Metric)]
THEIRS = "conn.open accept.total accept.success accept.error accept.timeout conn.timeout".split()
TIMERS = ["conn.handshake", "conn.lifetime"]
FIELDS = "count min max mean 50-percentile 75-percentile 95-percentile 99-percentile".split()


def in_json(prefix: str = "ghostunnel") -> dict[str, int | float]:
    return {one["metric"]: one["value"] for one in json.loads(encode_json(known_snapshot(), prefix, "box", NOW))}


def test_each_number_is_an_object_with_four_fields() -> None:
    entries = json.loads(encode_json(known_snapshot(), "ghostunnel", "box", NOW))
    assert {frozenset(entry) for entry in entries} == {frozenset(("hostname", "metric", "timestamp", "value"))}
    assert {(entry["hostname"], entry["timestamp"]) for entry in entries} == {("box", 1_800_000_000)}
    assert len({entry["metric"] for entry in entries}) == len(entries)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conn.open", 2),
        ("accept.total", 7),
        ("accept.success", 3),
        ("accept.error", 4),
        ("accept.timeout", 1),
        ("conn.timeout", 1),
        ("conn.error", 1),
        ("conn.handshake.count", 3),
        ("conn.handshake.min", 1_000_000),
        ("conn.handshake.max", 3_000_000),
        ("conn.handshake.mean", 2_000_000),
        ("conn.handshake.50-percentile", 2_000_000),
        ("conn.handshake.75-percentile", 3_000_000),
        ("conn.handshake.95-percentile", 3_000_000),
        ("conn.handshake.99-percentile", 3_000_000),
        ("conn.lifetime.mean", 2_000_000_000),
        ("traffic.forwarded", 1000),
        ("traffic.returned", 2000),
        ("refusals.expired", 1),
        ("failures.handshake-timeout", 1),
        ("failures.connection-refused", 1),
        ("outcomes.closed_without_data", 1),
        ("outcomes.close_timeout", 1),
        ("certificate.expiry", EXPIRY),
        ("revocation.expiry", EXPIRY + 5),
        ("generation.number", 4),
        ("identity.usable", 1),
        ("workload-api.ok", 0),
        ("workload-api.last-update", EXPIRY - 60),
        ("workload-api.updates", 5),
        ("workload-api.rejected", 2),
        ("workload-api.skipped", 1),
        ("workload-api.skipped-lists", 3),
        ("reload.successes.certificates", 1),
        ("reload.failures.certificates", 1),
        ("reload.last-successful.certificates", 0),
        ("reload.last-successful.policy", 1),
        ("runtime.mem.sys", 50_000_000),
        ("runtime.goroutines", 9),
        ("runtime.mem.gc.num-gc", 70),
        ("runtime.mem.gc.duration.count", 0),
        ("runtime.mem.gc.duration.99-percentile", 0),
        ("listener.redis.accepted", 7),
        ("listener.redis.relayed", 3),
        ("listener.redis.failed", 4),
        ("listener.redis.connections", 2),
        ("listener.redis.forwarded", 1000),
        ("listener.redis.returned", 2000),
        ("listener.redis.outcomes.refused", 2),
        ("listener.redis.outcomes.close_timeout", 1),
        ("listener.redis.refusals.expired", 1),
        ("listener.redis.failures.handshake-timeout", 1),
        ("listener.redis.withdrawals.no-matching-rule", 1),
        ("listener.redis.identity-usable", 1),
        ("listener.redis.certificate-expiry", EXPIRY),
        ("listener.redis.target.localhost_6379.healthy", 1),
        ("listener.redis.target.localhost_6379.connections", 2),
        ("listener.redis.target.localhost_6379.failures", 3),
    ],
)
def test_a_number_has_its_name_in_json(name: str, value: float) -> None:
    assert in_json()[f"ghostunnel.{name}"] == value


def test_what_consumers_rely_on_is_there_before_anything_has_happened() -> None:
    source, counters, _clock = known_source()
    fresh = timed_counters()
    source._measure = lambda: Measurement(fresh, TunnelGauges())
    found = {one["metric"]: one["value"] for one in json.loads(encode_json(source.snapshot(), "p", "", NOW))}
    relied_on = THEIRS[1:] + [f"{timer}.{field}" for timer in TIMERS for field in FIELDS]
    assert {name: found[f"p.{name}"] for name in relied_on} == dict.fromkeys(relied_on, 0)
    assert counters is not fresh


def test_reasons_that_have_not_occurred_are_no_entries() -> None:
    assert "ghostunnel.refusals.weak-key" not in in_json()
    assert "ghostunnel.reload.failures.policy" not in in_json()


@pytest.mark.parametrize(("prefix", "name"), [("", "accept.total"), ("a.b", "a.b.accept.total"), ("é x", "é x.accept.total")])
def test_the_prefix_stands_before_every_name(prefix: str, name: str) -> None:
    assert name in in_json(prefix)


def test_no_name_of_ours_is_part_of_one_of_ghostunnels_nor_the_other_way() -> None:
    theirs = THEIRS + [f"{timer}.{field}" for timer in TIMERS for field in FIELDS]
    ours = [name for name in in_json("") if name not in theirs]
    assert len(ours) > 20
    assert [(one, other) for one in ours for other in theirs + TIMERS if one in other or other in one] == []


def test_no_metric_has_two_meanings() -> None:
    assert len({one.name for one in EVERY}) == len(EVERY)
    assert all(one.help.endswith(".") and "\n" not in one.help and "\\" not in one.help for one in EVERY)


def in_lines(prefix: str = "ghostunnel", **fields: object) -> dict[str, str]:
    lines = encode_graphite(known_snapshot(), prefix, NOW, **fields).decode()
    assert lines.endswith("\n")
    found = {}
    for line in lines.splitlines():
        name, value, when = line.split(" ")
        assert when == "1800000000"
        assert name not in found
        found[name] = value
    return found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conn.open.count", "2"),
        ("conn.open.count_ps", "0.20"),
        ("accept.total.count", "7"),
        ("accept.total.count_ps", "0.70"),
        ("conn.handshake.count", "3"),
        ("conn.handshake.count_ps", "0.30"),
        ("conn.handshake.min", "1000000"),
        ("conn.handshake.max", "3000000"),
        ("conn.handshake.mean", "2000000.00"),
        ("conn.handshake.std-dev", "816496.58"),
        ("conn.handshake.50-percentile", "2000000.00"),
        ("conn.handshake.999-percentile", "3000000.00"),
        ("conn.handshake.one-minute", "0.30"),
        ("conn.handshake.five-minute", "0.30"),
        ("conn.handshake.fifteen-minute", "0.30"),
        ("conn.handshake.mean-rate", "0.30"),
        ("runtime.mem.gc.duration.count", "0"),
        ("runtime.mem.gc.duration.std-dev", "0.00"),
        ("runtime.goroutines.value", "9"),
        ("runtime.mem.gc.cpu-fraction.value", "0.00"),
        ("certificate.expiry.value", "1800003600"),
    ],
)
def test_a_number_has_its_line_for_graphite(name: str, value: str) -> None:
    assert in_lines()[f"ghostunnel.{name}"] == value


def test_a_kind_has_its_fields_and_no_others() -> None:
    fields: dict[str, set[str]] = {}
    for line in in_lines(""):
        name, _, field = line.rpartition(".")
        fields.setdefault(name, set()).add(field)
    percentiles = {f"{number}-percentile" for number in (50, 75, 95, 99, 999)}
    spread = {"count", "min", "max", "mean", "std-dev"} | percentiles
    expected = {
        Kind.COUNTER: {"count", "count_ps"},
        Kind.LEVEL: {"count", "count_ps"},
        Kind.GAUGE: {"value"},
        Kind.TIMER: spread | {"count_ps", "one-minute", "five-minute", "fifteen-minute", "mean-rate"},
        Kind.HISTOGRAM: spread,
    }
    for metric in EVERY:
        if not metric.label:
            name = metric.name.replace("listener.", "listener.redis.").replace("target.", "target.localhost_6379.")
            assert fields[name] == expected[metric.kind], metric


def test_a_rate_is_of_the_time_since_the_last_report() -> None:
    source, counters, clock = known_source()
    before = source.snapshot()
    counters.accepted += 30
    clock.now += 5
    lines = encode_graphite(source.snapshot(), "p", NOW, before).decode().splitlines()
    assert "p.accept.total.count 37 1800000000" in lines
    assert "p.accept.total.count_ps 6.00 1800000000" in lines
    assert "p.accept.success.count_ps 0.00 1800000000" in lines


def test_two_reports_at_one_moment_have_no_rate() -> None:
    source, _counters, _clock = known_source()
    before = source.snapshot()
    assert b"p.accept.total.count_ps 0.00 " in encode_graphite(source.snapshot(), "p", NOW, before)


def test_a_prefix_cannot_break_a_line_for_graphite() -> None:
    assert "a_b_c.accept.total.count" in in_lines("a b\nc")
