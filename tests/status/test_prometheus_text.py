"""Prometheus text is parsed by the client library to the values of the snapshot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.known_metrics import EXPIRY, known_snapshot
from tunnel.errors import Denial, LimitFault
from tunnel.status import metric_definitions
from tunnel.status.durations import LONG, SHORT
from tunnel.status.metric_definitions import Kind, Metric
from tunnel.status.prometheus import encode_prometheus

TEXT = encode_prometheus(known_snapshot(), "ghostunnel").decode()
FAMILIES = list(text_string_to_metric_families(TEXT))
SAMPLES = {(one.name, *one.labels.items()): one.value for family in FAMILIES for one in family.samples}
# The library's parser adds `_total` to a counter's name that lacks it, which Prometheus does not.
SERIES = dict(line.rsplit(" ", 1) for line in TEXT.splitlines() if not line.startswith("#"))
TYPES = dict(line.split(" ")[2:] for line in TEXT.splitlines() if line.startswith("# TYPE "))


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("conn_open", "gauge", 2),
        ("accept_total", "counter", 7),
        ("accept_success", "counter", 3),
        ("accept_error", "counter", 4),
        ("accept_timeout", "counter", 1),
        ("conn_timeout", "counter", 1),
        ("conn_error", "counter", 1),
        ("conn_handshake_min", "gauge", 1e6),
        ("conn_handshake_max", "gauge", 3e6),
        ("conn_handshake_mean", "gauge", 2e6),
        ("conn_handshake_rate1", "gauge", 0.3),
        ("conn_handshake_rate_mean", "gauge", 0.3),
        ("traffic_forwarded_bytes_total", "counter", 1000),
        ("traffic_returned_bytes_total", "counter", 2000),
        ("certificate_expiry_timestamp_seconds", "gauge", EXPIRY),
        ("revocation_expiry_timestamp_seconds", "gauge", EXPIRY + 5),
        ("generation_number", "gauge", 4),
        ("identity_usable", "gauge", 1),
        ("workload_api_ok", "gauge", 0),
        ("workload_api_last_update_timestamp_seconds", "gauge", EXPIRY - 60),
        ("workload_api_updates_total", "counter", 5),
        ("workload_api_rejected_total", "counter", 2),
        ("workload_api_skipped_total", "counter", 1),
        ("workload_api_skipped_lists_total", "counter", 3),
        ("runtime_mem_sys", "gauge", 50_000_000),
        ("runtime_mem_gc_num_gc", "counter", 70),
    ],
)
def test_a_number_has_its_series_and_its_kind(name: str, kind: str, value: float) -> None:
    assert float(SERIES[f"ghostunnel_{name}"]) == pytest.approx(value)
    assert TYPES[f"ghostunnel_{name}"] == kind


@pytest.mark.parametrize(
    ("name", "label", "kind", "value"),
    [
        ("refusals_total", ("reason", "expired"), "counter", 1),
        ("refusals_total", ("reason", "weak-key"), "counter", 0),
        ("failures_total", ("reason", "connection-refused"), "counter", 1),
        ("outcomes_total", ("outcome", "closed_without_data"), "counter", 1),
        ("reload_successes_total", ("what", "certificates"), "counter", 1),
        ("reload_failures_total", ("what", "policy"), "counter", 0),
        ("reload_last_successful", ("what", "certificates"), "gauge", 0),
    ],
)
def test_a_family_has_a_series_for_each_value_of_its_label(name: str, label: tuple[str, str], kind: str, value: int) -> None:
    assert SAMPLES[(f"ghostunnel_{name}", label)] == value
    assert TYPES[f"ghostunnel_{name}"] == kind


@pytest.mark.parametrize(
    ("name", "labels", "kind", "value"),
    [
        ("listener_accepted_total", {}, "counter", 7),
        ("listener_relayed_total", {}, "counter", 3),
        ("listener_failed_total", {}, "counter", 4),
        ("listener_connections", {}, "gauge", 2),
        ("listener_forwarded_bytes_total", {}, "counter", 1000),
        ("listener_outcomes_total", {"outcome": "refused"}, "counter", 2),
        ("listener_refusals_total", {"reason": "expired"}, "counter", 1),
        ("listener_failures_total", {"reason": "connection-refused"}, "counter", 1),
        ("listener_identity_usable", {}, "gauge", 1),
        ("listener_certificate_expiry_timestamp_seconds", {}, "gauge", EXPIRY),
        ("listener_target_healthy", {"target": "localhost:6379"}, "gauge", 1),
        ("listener_target_connections", {"target": "localhost:6379"}, "gauge", 2),
        ("listener_target_failures_total", {"target": "localhost:6379"}, "counter", 3),
    ],
)
def test_a_listener_has_series_of_families_of_its_own(name: str, labels: dict[str, str], kind: str, value: int) -> None:
    assert SAMPLES[(f"ghostunnel_{name}", ("listener", "redis"), *labels.items())] == value
    assert TYPES[f"ghostunnel_{name}"] == kind


def test_a_series_without_a_listener_is_not_in_a_family_with_listeners() -> None:
    families = {name: [dict(labels) for one, *labels in SAMPLES if one == name] for name, *_ in SAMPLES}
    assert [name for name, shown in families.items() if len({"listener" in labels for labels in shown}) > 1] == []


def test_every_reason_is_there_before_it_occurs() -> None:
    seen = {labels[0][1] for name, *labels in SAMPLES if name == "ghostunnel_refusals_total"}
    assert seen == {reason.value for reason in (*Denial, *LimitFault)}


@pytest.mark.parametrize(
    ("name", "bounds", "count", "total"),
    [("conn_handshake", SHORT, 3, 6e6), ("conn_lifetime", LONG, 1, 2e9), ("runtime_mem_gc_duration", SHORT, 0, 0)],
)
def test_a_timer_is_a_histogram_in_nanoseconds(name: str, bounds: tuple[int, ...], count: int, total: float) -> None:
    name = f"ghostunnel_{name}"
    assert TYPES[name] == "histogram"
    assert (SAMPLES[(f"{name}_count",)], SAMPLES[(f"{name}_sum",)]) == (count, total)
    buckets = [(float(labels[0][1]), value) for (one, *labels), value in SAMPLES.items() if one == f"{name}_bucket"]
    assert [bound for bound, _ in buckets] == [*bounds, float("inf")]
    assert [value for _, value in buckets] == sorted(value for _, value in buckets)
    assert buckets[-1][1] == count


def test_every_family_occurs_once_with_type_and_help() -> None:
    heads = [line.split(" ")[2] for line in TEXT.splitlines() if line.startswith("# TYPE ")]
    helped = {line.split(" ")[2] for line in TEXT.splitlines() if line.startswith("# HELP ") if len(line.split(" ")) > 4}
    assert len(heads) == len(set(heads))
    assert set(heads) == helped


def test_the_metrics_of_process_and_interpreter_are_included() -> None:
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "python_info"} <= set(TYPES)


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("", "accept_total"),
        ("my.proxy-1", "my_proxy_1_accept_total"),
        ("a = b/c", "a___b_c_accept_total"),
        ("1st", "_1st_accept_total"),
        ("ü\n", "___accept_total"),
    ],
)
def test_any_prefix_makes_legal_names(prefix: str, name: str) -> None:
    lines = encode_prometheus(known_snapshot(), prefix).decode().splitlines()
    assert f"{name} 7" in lines


def test_the_library_is_not_loaded_where_no_metrics_are_shown() -> None:
    code = (
        "import sys, tunnel.proxy.process, tunnel.status.counters, tunnel.status.snapshot, tunnel.status.encoders;"
        "sys.exit('prometheus_client' in sys.modules or 'h11' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_table_for_operators_has_every_metric_with_its_series_and_its_kind() -> None:
    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    names_of_page = text.partition("\n## ghostunnel's names\n")[2].partition("\n### Prometheus\n")[0]
    rows = [line.strip("| ").split(" | ") for line in names_of_page.splitlines() if line.startswith("| `")]
    told = {(name.strip("`"), series.strip("`"), kind) for name, series, kind, _meaning in rows}
    expected = set()
    for metric in (one for one in vars(metric_definitions).values() if isinstance(one, Metric)):
        name = f"{metric.name}.{metric.label.upper()}" if metric.label else metric.name
        scope = [word for word in ("listener", "target") if word in metric.name.split(".")]
        for word in scope:
            name = name.replace(f"{word}.", f"{word}.{word.upper()}.")
        series = metric.name.replace(".", "_").replace("-", "_") + metric.suffix
        assert f"ghostunnel_{series}" in TYPES
        kind = "gauge" if metric.kind is Kind.LEVEL else metric.kind.name.lower()
        labels = ",".join(filter(None, (*scope, metric.label)))
        expected.add((name, f"{series}{{{labels}}}" if labels else series, kind))
    assert told == expected
