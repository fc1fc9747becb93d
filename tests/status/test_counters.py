"""No counter and no metric is forgotten: each field of Counters changes the snapshot, and each metric has a reading."""

from __future__ import annotations

from typing import Any

import pytest

from tunnel.errors import Denial, IdentityLoss, TargetFault, WebRefusal
from tunnel.lazy_dataclass import fields, replace
from tunnel.status import metric_definitions
from tunnel.status.counters import EXPORTS, Counters, Reloads, TargetGauges, TunnelGauges, WorkloadApiState, total
from tunnel.status.durations import SHORT, DurationMetric
from tunnel.status.listener_readings import ListenerMeasurement
from tunnel.status.metric_reading import MetricReading
from tunnel.status.runtime import Runtime
from tunnel.status.snapshot import Measurement, MetricsSource


def measured() -> DurationMetric:
    timer = DurationMetric(SHORT, clock=lambda: 0.0)
    timer.update(1)
    return timer


CHANGED: dict[str, Any] = {
    "other_ends": {"lifetime": 1},
    "reasons": {Denial.NO_RULE.value: 1},
    "withdrawals": {IdentityLoss.EXPIRED.value: 1},
    "status_refusals": {WebRefusal.CROSS_SITE.value: 1},
    "certificates": Reloads(succeeded=1),
    "policy": Reloads(failed=1),
    "config": Reloads(failed=1),
    "workload_api": WorkloadApiState(last_update=1),
    "handshake": measured(),
    "lifetime": measured(),
}


def readings(counters: Counters) -> dict[tuple[str, str], object]:
    """What a snapshot says of counters; bytes of closed connections come by the gauges, as a tunnel adds them."""
    gauges = TunnelGauges(forwarded=counters.forwarded, returned=counters.returned, expiry=1)
    source = MetricsSource(lambda: Measurement(counters, gauges), Runtime(), clock=lambda: 0.0)
    return {(one.metric.name, one.label): one.value for one in source.snapshot().readings if not is_of_process(one)}


def is_of_process(reading: MetricReading) -> bool:
    return reading.metric.name.startswith("runtime.")


@pytest.mark.parametrize("name", [one.name for one in fields(Counters) if one.name != "durations"])
def test_each_field_of_the_counters_is_exported(name: str) -> None:
    plain, changed = readings(Counters()), readings(replace(Counters(), **{name: CHANGED.get(name, 1)}))
    assert changed != plain


@pytest.mark.parametrize("name", EXPORTS)
def test_a_counter_is_read_under_the_metric_of_its_declaration(name: str) -> None:
    metric = EXPORTS[name].metric
    label = name if metric.label else ""
    assert readings(replace(Counters(), **{name: 3}))[metric.name, label] == 3


def test_each_metric_has_a_reading() -> None:
    counters, gauges = Counters(refused=1, plaintext=1, **CHANGED), TunnelGauges(expiry=1, lists_expiry=1)
    counters.reasons = {Denial.NO_RULE.value: 1, TargetFault.REFUSED.value: 1}
    listener = ListenerMeasurement("redis", counters, gauges, (TargetGauges("localhost:6379", 1, 2, 3),))
    source = MetricsSource(lambda: Measurement(counters, gauges, (listener,)), Runtime())
    read = [reading.metric for reading in source.snapshot().readings]
    assert list(dict.fromkeys(read)) == list(metric_definitions.METRICS), "and in the order of the definitions"


def test_the_last_line_has_every_outcome_that_occurred() -> None:
    outcomes = [name for name, export in EXPORTS.items() if export.is_outcome]
    counters = replace(Counters(), **dict.fromkeys(outcomes, 1), other_ends={"close_timeout": 2}, reaped=9)
    assert counters.summary() == " ".join([*(f"{name}=1" for name in outcomes), "close_timeout=2"])


def test_what_failed_before_the_relay_adds_up_to_ghostunnels_error() -> None:
    before_accept = ["accept_errors"]
    accepted = "refused over_limit dial_failed client_gone no_identity closed_without_data wrong_local_user".split()
    failed = [*accepted, *before_accept, "crashed_before_relay"]
    assert [name for name, export in EXPORTS.items() if export.is_failure] == failed
    assert replace(Counters(), **dict.fromkeys(failed, 1), relayed=5, crashed=5).failed == len(failed)


def test_a_copy_does_not_change_with_its_original() -> None:
    counters = Counters(accepted=1, reasons={"expired": 1})
    copied = counters.copy()
    assert copied == counters
    counters.accepted = 2
    counters.add_reason("expired")
    assert copied == Counters(accepted=1, reasons={"expired": 1})


def test_errors_of_two_workload_apis_are_added_by_code() -> None:
    states = (WorkloadApiState("", errors={"UNAVAILABLE": 1}), WorkloadApiState("", errors={"UNAVAILABLE": 2, "INTERNAL": 1}))
    whole = total(Counters(workload_api=state) for state in states).workload_api
    assert whole is not None
    assert whole.errors == {"UNAVAILABLE": 3, "INTERNAL": 1}
    assert states[0].errors == {"UNAVAILABLE": 1}
