"""All metric families under our own names; here are those of the process, without the label `listener`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunnel.errors import WebRefusal
from tunnel.status.counters import Reloads, WorkloadApiState
from tunnel.status.listener_families import LISTENER_FAMILIES
from tunnel.status.metric_facts import ProcessFacts
from tunnel.status.metric_family import COUNTER, GAUGE, HISTOGRAM, MetricFamily, ReadSamples, Sample, read_by_word, read_single


def _of_workload_api(read: Callable[[WorkloadApiState], int]) -> ReadSamples:
    def read_state(facts: ProcessFacts) -> int | None:
        state = facts.counters.workload_api
        return None if state is None else read(state)

    return read_single(read_state)


def _read_stream_errors(facts: ProcessFacts) -> Iterator[Sample]:
    if facts.counters.workload_api is not None:
        yield from read_by_word(facts.counters.workload_api.errors)


def _reloads(facts: ProcessFacts) -> Iterator[tuple[str, Reloads]]:
    for what in ("certificates", "policy", "config"):
        yield what, getattr(facts.counters, what)


def _read_reloads(facts: ProcessFacts) -> Iterator[Sample]:
    for what, reloads in _reloads(facts):
        yield (what, "success"), reloads.succeeded
        yield (what, "failure"), reloads.failed


def _read_last_reloads(facts: ProcessFacts) -> Iterator[Sample]:
    for what, reloads in _reloads(facts):
        yield (what,), int(reloads.is_last_successful)


def _read_authorities(facts: ProcessFacts) -> Iterator[Sample]:
    for bundle in facts.trust_domains:
        yield (bundle.name,), bundle.authorities


def _read_bundle_ends(facts: ProcessFacts) -> Iterator[Sample]:
    for bundle in facts.trust_domains:
        if bundle.expires is not None:
            yield (bundle.name,), bundle.expires


def _read_web_refusals(facts: ProcessFacts) -> Iterator[Sample]:
    for refusal in WebRefusal:
        yield (refusal.value,), facts.counters.status_refusals.get(refusal.value, 0)


FAMILIES: tuple[MetricFamily, ...] = (
    *LISTENER_FAMILIES,
    MetricFamily(
        "tunnel_workload_api_updates",
        COUNTER,
        "Workload API updates accepted.",
        _of_workload_api(lambda state: state.updates),
    ),
    MetricFamily(
        "tunnel_workload_api_rejected_updates",
        COUNTER,
        "Workload API updates rejected.",
        _of_workload_api(lambda state: state.rejected),
    ),
    MetricFamily(
        "tunnel_workload_api_errors",
        COUNTER,
        "Workload API streams that failed, by gRPC status code, from the first one on.",
        _read_stream_errors,
        ("code",),
    ),
    MetricFamily(
        "tunnel_workload_api_skipped_svids",
        COUNTER,
        "SVIDs in accepted updates that were invalid and skipped.",
        _of_workload_api(lambda state: state.skipped),
    ),
    MetricFamily(
        "tunnel_workload_api_skipped_revocation_lists",
        COUNTER,
        "Revocation lists in accepted updates that could not be used.",
        _of_workload_api(lambda state: state.skipped_lists),
    ),
    MetricFamily(
        "tunnel_trust_bundle_authorities",
        GAUGE,
        "Authorities in the trust bundle of a trust domain.",
        _read_authorities,
        ("trust_domain",),
    ),
    MetricFamily(
        "tunnel_trust_bundle_expiry_timestamp_seconds",
        GAUGE,
        "Unix time at which the first authority in the trust bundle of a trust domain expires.",
        _read_bundle_ends,
        ("trust_domain",),
    ),
    MetricFamily(
        "tunnel_ready",
        GAUGE,
        "Whether every listener would serve a client now, without regard to the targets.",
        read_single(lambda facts: int(facts.is_ready)),
    ),
    MetricFamily(
        "tunnel_status_port_connections_open",
        GAUGE,
        "Open connections of the status port.",
        read_single(lambda facts: facts.status_port.used),
    ),
    MetricFamily(
        "tunnel_status_port_connections_max",
        GAUGE,
        "Maximum number of connections of the status port.",
        read_single(lambda facts: facts.status_port.most),
    ),
    MetricFamily(
        "tunnel_status_port_refusals",
        COUNTER,
        "Requests refused by the status port, by reason.",
        _read_web_refusals,
        ("reason",),
    ),
    MetricFamily(
        "tunnel_reloads",
        COUNTER,
        "Reloads and updates of certificates, policy or configuration, by result.",
        _read_reloads,
        ("what", "result"),
    ),
    MetricFamily(
        "tunnel_last_reload_successful",
        GAUGE,
        "Whether the last reload or update succeeded, or none was tried.",
        _read_last_reloads,
        ("what",),
    ),
    MetricFamily(
        "tunnel_event_loop_lag_seconds",
        HISTOGRAM,
        "How late timers of the event loop fire, measured four times a second.",
        read_single(lambda facts: facts.lag),
    ),
    MetricFamily(
        "tunnel_log_dropped_lines",
        COUNTER,
        "Log lines that were lost: the reader was blocked, or a write failed.",
        lambda facts: read_by_word(facts.dropped_lines),
        ("log",),
    ),
    MetricFamily(
        "tunnel_workers",
        GAUGE,
        "Worker processes that run; 0 if this process serves connections itself.",
        read_single(lambda facts: facts.workers),
    ),
    MetricFamily(
        "tunnel_worker_restarts",
        COUNTER,
        "Worker processes that have died and were replaced.",
        read_single(lambda facts: facts.worker_restarts),
    ),
    MetricFamily(
        "tunnel_internal_errors",
        COUNTER,
        "Unexpected exceptions; each has a traceback in the log.",
        read_single(lambda facts: facts.counters.crashed),
    ),
    MetricFamily(
        "tunnel_build_info",
        GAUGE,
        "Versions of the proxy, of Python and of OpenSSL; the value is 1.",
        lambda facts: [(tuple(facts.versions.values()), 1)],
        ("version", "python", "openssl"),
    ),
)
