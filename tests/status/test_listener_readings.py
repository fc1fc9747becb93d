"""The metrics of listeners and targets: one series for each name of the configuration."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

from tunnel.errors import Denial, LimitFault, TargetFault, TlsFault, WireFault
from tunnel.status import metric_definitions
from tunnel.status.counters import Counters, TargetGauges, TunnelGauges
from tunnel.status.encoders import encode_graphite, encode_json
from tunnel.status.listener_readings import ListenerMeasurement
from tunnel.status.prometheus import encode_prometheus
from tunnel.status.runtime import Runtime
from tunnel.status.snapshot import Measurement, MetricsSource, Snapshot


def snapshot(*listeners: ListenerMeasurement) -> Snapshot:
    whole = Counters()
    for one in listeners:
        whole.add(one.counters)
    return MetricsSource(lambda: Measurement(whole, TunnelGauges(), listeners), Runtime(), clock=lambda: 0.0).snapshot()


def listener(name: str, *targets: str, **counts: int) -> ListenerMeasurement:
    return ListenerMeasurement(name, Counters(**counts), TunnelGauges(), tuple(TargetGauges(one, 1, 0, 0) for one in targets))


def in_json(shown: Snapshot) -> dict[str, float]:
    entries = json.loads(encode_json(shown, "", "", 0))
    assert len({entry["metric"] for entry in entries}) == len(entries)
    return {entry["metric"]: entry["value"] for entry in entries if entry["metric"].startswith("listener.")}


def series(shown: Snapshot, name: str) -> dict[tuple[str, ...], float]:
    """The samples of a family by the values of their labels."""
    families = text_string_to_metric_families(encode_prometheus(shown, "").decode())
    return {tuple(one.labels.values()): one.value for family in families for one in family.samples if one.name == name}


def test_each_listener_has_its_own_numbers_and_the_sum_is_the_old_name() -> None:
    shown = snapshot(listener("redis", accepted=3), listener("cache", accepted=4))
    assert series(shown, "listener_accepted_total") == {("redis",): 3, ("cache",): 4}
    assert series(shown, "accept_total") == {(): 7}
    found = in_json(shown)
    assert (found["listener.redis.accepted"], found["listener.cache.accepted"]) == (3, 4)


def test_a_listener_without_traffic_has_its_main_series() -> None:
    found = in_json(snapshot(listener("redis")))
    assert {name.removeprefix("listener.redis.") for name in found} == {
        *("accepted", "relayed", "failed", "connections", "forwarded", "returned", "identity-usable"),
    }
    assert series(snapshot(listener("redis")), "listener_failed_total") == {("redis",): 0}


def test_a_name_is_one_part_of_a_dotted_name_and_remains_unique() -> None:
    shown = snapshot(listener("10.0.0.1:80"), listener("10_0_0_1:80"), listener("10_0_0_1_80_2"), listener("é"))
    names = [name.split(".")[1] for name in in_json(shown) if name.endswith(".accepted")]
    assert names == ["10_0_0_1_80", "10_0_0_1_80_2", "10_0_0_1_80_2_2", "_"]


def test_targets_of_different_listeners_may_have_one_name() -> None:
    shown = snapshot(listener("a", "db:1", "db.1"), listener("b", "db:1"))
    names = {name for name in in_json(shown) if name.endswith(".healthy")}
    assert names == {
        *("listener.a.target.db_1.healthy", "listener.a.target.db_1_2.healthy", "listener.b.target.db_1.healthy"),
    }


def test_any_name_is_a_label_that_parsers_read() -> None:
    odd = 'unix:/a "b"\\c\nd'
    assert series(snapshot(listener(odd, odd)), "listener_target_healthy") == {(odd, odd): 1}


def test_bytes_of_a_path_that_are_no_text_are_replaced() -> None:
    assert series(snapshot(listener("unix:/\udcff")), "listener_accepted_total") == {("unix:/?",): 0}


def test_a_name_cannot_break_a_line_for_graphite() -> None:
    lines = encode_graphite(snapshot(listener("a b\nc.d")), "p", 0).decode().splitlines()
    assert "p.listener.a_b_c_d.accepted.count 0 0" in lines


def test_labels_are_names_of_the_configuration_and_enumerated_words_only() -> None:
    labels = {one.label for one in metric_definitions.METRICS if one.name.startswith("listener.")}
    assert labels == {"", "outcome", "reason"}


def test_what_neither_a_rule_nor_a_limit_refused_is_a_failure() -> None:
    one = listener("redis")
    for reason in (Denial.NO_RULE, LimitFault.PEER_RATE, TlsFault.TIMEOUT, TargetFault.REFUSED, WireFault.TOO_LARGE):
        one.counters.add_reason(reason.value)
    shown = snapshot(one)
    assert {reason for _, reason in series(shown, "listener_refusals_total")} == {
        Denial.NO_RULE.value,
        LimitFault.PEER_RATE.value,
    }
    assert {reason for _, reason in series(shown, "listener_failures_total")} == {
        *(TlsFault.TIMEOUT.value, TargetFault.REFUSED.value, WireFault.TOO_LARGE.value),
    }
