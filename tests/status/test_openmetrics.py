"""The metrics under our own names are valid in both formats, and the table for operators lists exactly these families."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from tests.support.known_facts import BEGIN, EXPIRY, known_facts, known_listener
from tunnel.errors import LimitFault, TargetFault, TlsFault
from tunnel.lazy_dataclass import replace
from tunnel.status import openmetrics
from tunnel.status.metric_facts import ProcessFacts, merge_trust_domains
from tunnel.status.metric_families import FAMILIES
from tunnel.status.metric_family import FamilyType
from tunnel.status.openmetrics import OPENMETRICS_TYPE, MetricsFormat, accepts_openmetrics, encode_metrics

Samples = dict[tuple[Any, ...], float]
TEXT, OPENMETRICS = MetricsFormat(), MetricsFormat(is_openmetrics=True)
LISTENER = (("listener", "redis"), ("direction", "inbound"))


def parsed(facts: ProcessFacts, chosen: MetricsFormat) -> list[Metric]:
    parse: Callable[[str], Iterable[Metric]] = text_string_to_metric_families
    if chosen.is_openmetrics:
        parse = openmetrics_parser.text_string_to_metric_families
    return list(parse(encode_metrics(facts, chosen).decode()))


def samples(facts: ProcessFacts, chosen: MetricsFormat = OPENMETRICS) -> Samples:
    """The values of our series by name and labels; each series occurs once."""
    found = [
        ((one.name, *one.labels.items()), one.value)
        for family in parsed(facts, chosen)
        for one in family.samples
        if one.name.startswith("tunnel_")
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("connections_open", LISTENER, 2),
        ("connections_accepted_total", LISTENER, 9),
        ("connections_total", (*LISTENER, ("outcome", "relayed")), 5),
        ("connections_total", (*LISTENER, ("outcome", "crashed")), 0),
        ("relays_ended_total", (*LISTENER, ("reason", "close_timeout")), 1),
        ("refusals_total", (*LISTENER, ("reason", "expired")), 1),
        ("failures_total", (*LISTENER, ("reason", "handshake-timeout")), 2),
        ("withdrawals_total", (*LISTENER, ("reason", "no-matching-rule")), 1),
        ("accept_errors_total", LISTENER, 6),
        ("handshake_duration_seconds_bucket", (*LISTENER, ("le", "0.001")), 0),
        ("handshake_duration_seconds_bucket", (*LISTENER, ("le", "0.0025")), 1),
        ("handshake_duration_seconds_sum", LISTENER, 0.002),
        ("dial_duration_seconds_bucket", (*LISTENER, ("le", "0.00025")), 1),
        ("connection_duration_seconds_bucket", (*LISTENER, ("le", "86400.0")), 0),
        ("connection_duration_seconds_bucket", (*LISTENER, ("le", "+Inf")), 1),
        ("connection_duration_seconds_count", LISTENER, 1),
        ("forwarded_bytes_total", LISTENER, 1000),
        ("returned_bytes_total", LISTENER, 2000),
        ("plaintext_connections_open", LISTENER, 1),
        ("plaintext_connections_total", LISTENER, 2),
        ("peer_connections_total", (*LISTENER, ("peer", "spiffe://a.test/web")), 4),
        ("peer_connections_open", (*LISTENER, ("peer", "spiffe://a.test/web")), 2),
        ("peer_forwarded_bytes_total", (*LISTENER, ("peer", "other")), 100),
        ("peer_returned_bytes_total", (*LISTENER, ("peer", "spiffe://a.test/web")), 1900),
        ("target_healthy", (*LISTENER, ("target", "localhost:6379")), 1),
        ("target_connections_open", (*LISTENER, ("target", "localhost:6379")), 2),
        ("target_failures_total", (*LISTENER, ("target", "localhost:6379")), 3),
        ("identity_usable", LISTENER, 1),
        ("certificate_begin_timestamp_seconds", LISTENER, BEGIN),
        ("certificate_expiry_timestamp_seconds", LISTENER, EXPIRY),
        ("certificate_rotations_total", LISTENER, 2),
        ("revocation_lists_expiry_timestamp_seconds", LISTENER, EXPIRY + 5),
        ("workload_api_up", LISTENER, 1),
        ("workload_api_last_update_timestamp_seconds", LISTENER, BEGIN + 9),
        ("workload_api_updates_total", (), 5),
        ("workload_api_rejected_updates_total", (), 2),
        ("workload_api_errors_total", (("code", "UNAVAILABLE"),), 4),
        ("workload_api_skipped_svids_total", (), 1),
        ("workload_api_skipped_revocation_lists_total", (), 3),
        ("trust_bundle_authorities", (("trust_domain", "a.test"),), 2),
        ("trust_bundle_expiry_timestamp_seconds", (("trust_domain", "a.test"),), EXPIRY + 1),
        ("ready", (), 1),
        ("listener_ready", LISTENER, 1),
        ("limit_used", (*LISTENER, ("limit", "handshakes")), 7),
        ("limit_max", (*LISTENER, ("limit", "handshakes")), 512),
        ("status_port_connections_open", (), 1),
        ("status_port_connections_max", (), 256),
        ("status_port_refusals_total", (("reason", "cross-site"),), 1),
        ("reloads_total", (("what", "certificates"), ("result", "failure")), 1),
        ("last_reload_successful", (("what", "certificates"),), 0),
        ("event_loop_lag_seconds_bucket", (("le", "0.0025"),), 0),
        ("event_loop_lag_seconds_bucket", (("le", "0.005"),), 1),
        ("log_dropped_lines_total", (("log", "log"),), 8),
        ("workers", (), 2),
        ("worker_restarts_total", (), 3),
        ("internal_errors_total", (), 1),
        ("build_info", (("version", "1.0"), ("python", "3.11.2"), ("openssl", "3.5.1")), 1),
    ],
)
def test_a_fact_is_a_sample(name: str, labels: tuple[tuple[str, str], ...], value: float) -> None:
    assert samples(known_facts())[f"tunnel_{name}", *labels] == value


def test_both_formats_have_the_same_samples() -> None:
    assert samples(known_facts(), TEXT) == samples(known_facts(), OPENMETRICS)


@pytest.mark.parametrize("chosen", [TEXT, OPENMETRICS])
def test_each_family_has_a_sample_its_type_and_its_help(chosen: MetricsFormat) -> None:
    found = {family.name: family for family in parsed(known_facts(), chosen)}
    for family in FAMILIES:
        shown = found[family.name]
        assert (shown.type, shown.documentation) == (family.type.value, family.help)
        assert shown.samples, family.name
        assert shown.unit == (family.unit if chosen.is_openmetrics else "")
    assert {"process_cpu_seconds", "process_open_fds", "process_start_time_seconds", "python_info"} <= set(found)


def test_openmetrics_ends_with_its_mark_and_the_text_format_has_none() -> None:
    assert encode_metrics(known_facts(), OPENMETRICS).endswith(b"\n# EOF\n")
    assert b"# EOF" not in encode_metrics(known_facts(), TEXT)


@pytest.mark.parametrize("chosen", [TEXT, OPENMETRICS])
def test_any_text_is_one_label_value(chosen: MetricsFormat) -> None:
    hostile = 'a"} 1\ntunnel_ready 0\\n\\"ü\x7f'
    assert samples(known_facts(hostile), chosen)["tunnel_peer_connections_open", *LISTENER, ("peer", hostile)] == 2


def test_what_does_not_exist_has_no_sample() -> None:
    facts = known_facts()
    listener = replace(known_listener(), durations=None, workload_api=None, permits_plaintext=False)
    listener.counters.plaintext = 0
    listener.counters.reasons.clear()
    facts.counters.workload_api = None
    found = {name for name, *_ in samples(replace(facts, listeners=(listener,), trust_domains=(), peers=()))}
    absent = {family.series_name for family in FAMILIES if not any(name.startswith(family.name) for name in found)}
    assert absent == {
        *("tunnel_refusals_total", "tunnel_failures_total", "tunnel_plaintext_connections_open"),
        *("tunnel_plaintext_connections_total", "tunnel_handshake_duration_seconds", "tunnel_dial_duration_seconds"),
        *("tunnel_connection_duration_seconds", "tunnel_peer_connections_total", "tunnel_peer_connections_open"),
        *("tunnel_peer_forwarded_bytes_total", "tunnel_peer_returned_bytes_total", "tunnel_workload_api_up"),
        *("tunnel_workload_api_last_update_timestamp_seconds", "tunnel_workload_api_updates_total"),
        *("tunnel_workload_api_rejected_updates_total", "tunnel_workload_api_errors_total"),
        *("tunnel_workload_api_skipped_svids_total", "tunnel_workload_api_skipped_revocation_lists_total"),
        *("tunnel_trust_bundle_authorities", "tunnel_trust_bundle_expiry_timestamp_seconds"),
    }


def test_a_client_is_outbound() -> None:
    found = samples(replace(known_facts(), listeners=(known_listener(is_server=False),)))
    assert {dict(labels)["direction"] for _, *labels in found if "listener" in dict(labels)} == {"outbound"}


def test_a_refusal_is_for_the_peer_and_a_failure_for_any_other_cause() -> None:
    facts, names = known_facts(), {}
    for reason in (LimitFault.PEER_RATE, TlsFault.BUSY, TargetFault.TIMEOUT):
        facts.listeners[0].counters.reasons = {reason.value: 1}
        names[reason] = {name for name, *labels in samples(facts) if ("reason", reason.value) in labels}
    assert list(names.values()) == [{"tunnel_refusals_total"}, {"tunnel_failures_total"}, {"tunnel_failures_total"}]


def test_of_two_bundles_of_a_trust_domain_the_worse_values_count() -> None:
    first = known_listener().identity
    (bundle,) = first.trust_domains
    other = replace(first, trust_domains=(replace(bundle, authorities=0, expires=None), replace(bundle, name="b.test")))
    assert merge_trust_domains([first, other]) == [replace(bundle, authorities=0), replace(bundle, name="b.test")]


def test_a_body_may_be_compressed() -> None:
    packed = encode_metrics(known_facts(), MetricsFormat(is_openmetrics=True, is_gzip=True))
    assert gzip.decompress(packed).endswith(b"# EOF\n")


def test_the_thread_that_encodes_pauses_after_each_block_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(openmetrics.time, "sleep", pauses.append)
    listeners = tuple(known_listener(f"listener-{number}") for number in range(30))
    body = encode_metrics(replace(known_facts(), listeners=listeners, peers=()), TEXT)
    assert len(pauses) > 5
    assert abs(len(pauses) - body.count(b"\n") / 200) < 3, "a head is one block of two lines"


PROMETHEUS_242 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accepted", "is_chosen"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", True),
        ('application/openmetrics-text;version="1.0.0"', True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.6", False),
        ("application/openmetrics-text;q=0.6,text/plain;q=0.5", True),
        ("text/plain, application/openmetrics-text", True),
        (PROMETHEUS_242, True),
        (",;=,;q=,application/openmetrics-text;;version=;q=1", False),
    ],
)
def test_openmetrics_is_chosen_if_the_client_prefers_it(accepted: str, is_chosen: bool) -> None:
    assert accepts_openmetrics(accepted) is is_chosen


def test_the_content_type_names_the_format() -> None:
    assert OPENMETRICS.content_type == OPENMETRICS_TYPE
    assert TEXT.content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_the_names_follow_the_conventions() -> None:
    for family in FAMILIES:
        assert re.fullmatch(r"tunnel_[a-z]+(_[a-z]+)*", family.name), family.name
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_created")), family.name
        assert family.help.endswith("."), family.name
        assert family.type is not FamilyType.HISTOGRAM or family.unit == "seconds"
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_the_table_for_operators_has_exactly_these_families() -> None:
    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    section = text.partition("\n## Names\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ")[:2] for line in section.splitlines() if line.startswith("| `")]
    expected = [
        [
            f"`{family.series_name}{{{','.join(family.labels)}}}`" if family.labels else f"`{family.series_name}`",
            family.type.value,
        ]
        for family in FAMILIES
    ]
    assert rows == expected
