"""The metric families under our own names: name, type, help text, labels, and how their samples are read from the facts.

A new family is one entry here and one row in docs/metrics.md; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from tunnel.errors import Denial, LimitFault, WebRefusal
from tunnel.status.counters import Reloads, WorkloadApiState
from tunnel.status.histogram import HistogramReading
from tunnel.status.metric_facts import ListenerFacts, ProcessFacts
from tunnel.status.peer_table import PeerTraffic

Value = int | float | HistogramReading
Sample = tuple[tuple[str, ...], Value]  # the values of the labels, and that of the sample
_UNITS = ("bytes", "seconds")
_REFUSALS = frozenset(reason.value for reason in (*Denial, *LimitFault))
_LISTENER = ("listener", "direction")
_OUTCOMES = {  # label values, which are those of ConnectionOutcome, and the fields of Counters; each connection has one
    "relayed": "relayed",
    "refused": "refused",
    "over_limit": "over_limit",
    "dial_failed": "dial_failed",
    "client_gone": "client_gone",
    "closed_without_data": "closed_without_data",
    "acme_challenge": "acme_challenge",
    "no_identity": "no_identity",
    "wrong_local_user": "wrong_local_user",
    "crashed": "crashed_before_relay",
}


class FamilyType(Enum):
    """The type of a family, with its word in the text formats."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One family; the samples of a counter have the suffix `_total`, which `name` has not."""

    name: str
    type: FamilyType
    help: str
    read: Callable[[ProcessFacts], Iterable[Sample]]
    labels: tuple[str, ...] = ()

    @property
    def series_name(self) -> str:
        """The name in a query; a histogram has `_bucket`, `_sum` and `_count` in addition."""
        return f"{self.name}_total" if self.type is FamilyType.COUNTER else self.name

    @property
    def unit(self) -> str:
        """The unit, which is the end of the name; "" without one."""
        last = self.name.rpartition("_")[2]
        return last if last in _UNITS else ""


ReadListener = Callable[[ListenerFacts], Iterable[Sample]]


def _of_listener(
    name: str, family_type: FamilyType, text: str, read: ReadListener, labels: tuple[str, ...] = ()
) -> MetricFamily:
    """A family with samples of each listener."""

    def read_all(facts: ProcessFacts) -> Iterator[Sample]:
        for listener in facts.listeners:
            for values, value in read(listener):
                yield (listener.name, listener.direction, *values), value

    return MetricFamily(name, family_type, text, read_all, (*_LISTENER, *labels))


def _of_peer(name: str, family_type: FamilyType, text: str, read: Callable[[PeerTraffic], int]) -> MetricFamily:
    """A family with samples of each peer."""

    def read_all(facts: ProcessFacts) -> Iterator[Sample]:
        directions = {listener.name: listener.direction for listener in facts.listeners}
        for series in facts.peers:
            listener = series.key.listener
            yield (listener, directions[listener], series.key.peer), read(series.traffic)

    return MetricFamily(name, family_type, text, read_all, (*_LISTENER, "peer"))


def _one(read: Callable[[ListenerFacts], Value | None]) -> ReadListener:
    """One sample of a listener, or none."""

    def read_one(listener: ListenerFacts) -> Iterator[Sample]:
        value = read(listener)
        if value is not None:
            yield (), value

    return read_one


def _by_word(counts: Mapping[str, int]) -> Iterator[Sample]:
    for word, count in counts.items():
        yield (word,), count


def _read_outcomes(listener: ListenerFacts) -> Iterator[Sample]:
    for outcome, field in _OUTCOMES.items():
        yield (outcome,), getattr(listener.counters, field)


def _read_ends(listener: ListenerFacts) -> Iterator[Sample]:
    for name in ("close_notify", "fin_without_close_notify", "truncated"):
        yield (name,), getattr(listener.counters, name)
    for close_reason, count in listener.counters.other_ends.items():
        yield (close_reason.replace("-", "_"),), count


def _read_reasons(*, are_refusals: bool) -> ReadListener:
    def read(listener: ListenerFacts) -> Iterator[Sample]:
        for word, count in listener.counters.reasons.items():
            if (word in _REFUSALS) == are_refusals:
                yield (word,), count

    return read


def _read_limits(listener: ListenerFacts) -> Iterator[Sample]:
    for limit in listener.limits:
        yield (limit.name,), limit.used


def _read_limit_sizes(listener: ListenerFacts) -> Iterator[Sample]:
    for limit in listener.limits:
        if limit.most:
            yield (limit.name,), limit.most


def _read_duration(name: str) -> ReadListener:
    return _one(lambda listener: None if listener.durations is None else getattr(listener.durations, name))


def _read_source(read: Callable[[WorkloadApiState], int | None]) -> ReadListener:
    return _one(lambda listener: None if listener.workload_api is None else read(listener.workload_api))


def _read_targets(name: str) -> ReadListener:
    def read(listener: ListenerFacts) -> Iterator[Sample]:
        for target in listener.targets:
            yield (target.name,), getattr(target, name)

    return read


def _single(read: Callable[[ProcessFacts], Value | None]) -> Callable[[ProcessFacts], Iterable[Sample]]:
    """One sample of the process, or none."""

    def read_one(facts: ProcessFacts) -> Iterator[Sample]:
        value = read(facts)
        if value is not None:
            yield (), value

    return read_one


def _of_workload_api(read: Callable[[WorkloadApiState], int]) -> Callable[[ProcessFacts], Iterable[Sample]]:
    def read_state(facts: ProcessFacts) -> int | None:
        state = facts.counters.workload_api
        return None if state is None else read(state)

    return _single(read_state)


def _read_stream_errors(facts: ProcessFacts) -> Iterator[Sample]:
    if facts.counters.workload_api is not None:
        yield from _by_word(facts.counters.workload_api.errors)


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


_COUNTER, _GAUGE, _HISTOGRAM = FamilyType.COUNTER, FamilyType.GAUGE, FamilyType.HISTOGRAM

FAMILIES: tuple[MetricFamily, ...] = (
    # -- connections
    _of_listener("tunnel_connections_open", _GAUGE, "Open connections, from accept on.", _one(lambda one: one.gauges.opened)),
    _of_listener("tunnel_connections_accepted", _COUNTER, "Connections accepted.", _one(lambda one: one.counters.accepted)),
    _of_listener(
        "tunnel_connections",
        _COUNTER,
        "Connections by outcome: relayed ones from the begin of the relay on, others at their end.",
        _read_outcomes,
        ("outcome",),
    ),
    _of_listener("tunnel_relays_ended", _COUNTER, "Ends of relayed TLS connections, by close reason.", _read_ends, ("reason",)),
    _of_listener(
        "tunnel_refusals",
        _COUNTER,
        "Peers refused by a rule or a limit, by reason, from the first one on.",
        _read_reasons(are_refusals=True),
        ("reason",),
    ),
    _of_listener(
        "tunnel_failures",
        _COUNTER,
        "Connections that failed in the handshake, the dial or the PROXY header, by reason, from the first one on.",
        _read_reasons(are_refusals=False),
        ("reason",),
    ),
    _of_listener(
        "tunnel_withdrawals",
        _COUNTER,
        "Open connections that we closed because access was withdrawn, by reason, from the first one on.",
        lambda one: _by_word(one.counters.withdrawals),
        ("reason",),
    ),
    _of_listener("tunnel_accept_errors", _COUNTER, "Errors of accept.", _one(lambda one: one.counters.accept_errors)),
    _of_listener(
        "tunnel_handshake_duration_seconds",
        _HISTOGRAM,
        "Time of each successful TLS handshake, with the wait for a handshake slot.",
        _read_duration("handshake"),
    ),
    _of_listener(
        "tunnel_dial_duration_seconds",
        _HISTOGRAM,
        "Time until a target was connected, with the resolution of its name.",
        _read_duration("dial"),
    ),
    _of_listener(
        "tunnel_connection_duration_seconds",
        _HISTOGRAM,
        "Time from accept to close of each relayed connection.",
        _read_duration("connection"),
    ),
    _of_listener(
        "tunnel_forwarded_bytes",
        _COUNTER,
        "Bytes of plaintext from accepted connections to the targets.",
        _one(lambda one: one.gauges.forwarded),
    ),
    _of_listener(
        "tunnel_returned_bytes",
        _COUNTER,
        "Bytes of plaintext from the targets to accepted connections.",
        _one(lambda one: one.gauges.returned),
    ),
    _of_listener(
        "tunnel_plaintext_connections_open",
        _GAUGE,
        "Open connections of plain clients, if they are permitted.",
        _one(lambda one: one.gauges.plain_opened if one.permits_plaintext or one.counters.plaintext else None),
    ),
    _of_listener(
        "tunnel_plaintext_connections",
        _COUNTER,
        "Connections of plain clients, if they are permitted.",
        _one(lambda one: one.counters.plaintext if one.permits_plaintext or one.counters.plaintext else None),
    ),
    # -- peers and targets
    _of_peer("tunnel_peer_connections", _COUNTER, "Relayed connections of a peer.", lambda one: one.connections),
    _of_peer("tunnel_peer_connections_open", _GAUGE, "Open relayed connections of a peer.", lambda one: one.opened),
    _of_peer(
        "tunnel_peer_forwarded_bytes",
        _COUNTER,
        "Bytes of plaintext from accepted connections to the targets, by peer.",
        lambda one: one.forwarded,
    ),
    _of_peer(
        "tunnel_peer_returned_bytes",
        _COUNTER,
        "Bytes of plaintext from the targets to accepted connections, by peer.",
        lambda one: one.returned,
    ),
    _of_listener("tunnel_target_healthy", _GAUGE, "Healthy addresses of a target.", _read_targets("healthy"), ("target",)),
    _of_listener(
        "tunnel_target_connections_open",
        _GAUGE,
        "Connections to a target, with those that are being established.",
        _read_targets("opened"),
        ("target",),
    ),
    _of_listener(
        "tunnel_target_failures",
        _COUNTER,
        "Failed connection attempts to a target, and failed health checks.",
        _read_targets("failures"),
        ("target",),
    ),
    # -- our identity
    _of_listener(
        "tunnel_identity_usable",
        _GAUGE,
        "Whether our identity can be used for new connections.",
        _one(lambda one: int(one.gauges.is_identity_usable)),
    ),
    _of_listener(
        "tunnel_certificate_begin_timestamp_seconds",
        _GAUGE,
        "Unix time at which the validity of our certificate begins.",
        _one(lambda one: one.identity.not_before),
    ),
    _of_listener(
        "tunnel_certificate_expiry_timestamp_seconds",
        _GAUGE,
        "Unix time at which our certificate expires.",
        _one(lambda one: one.identity.not_after),
    ),
    _of_listener(
        "tunnel_certificate_rotations",
        _COUNTER,
        "How often our certificate was replaced by another one.",
        _one(lambda one: one.identity.replaced),
    ),
    _of_listener(
        "tunnel_revocation_lists_expiry_timestamp_seconds",
        _GAUGE,
        "Unix time at which the first revocation list expires.",
        _one(lambda one: one.gauges.lists_expiry),
    ),
    _of_listener(
        "tunnel_workload_api_up",
        _GAUGE,
        "Whether the Workload API stream is open, its last update was accepted and no rotation is overdue.",
        _read_source(lambda state: int(not state.error)),
    ),
    _of_listener(
        "tunnel_workload_api_last_update_timestamp_seconds",
        _GAUGE,
        "Unix time of the last accepted Workload API update.",
        _read_source(lambda state: state.last_update),
    ),
    MetricFamily(
        "tunnel_workload_api_updates",
        _COUNTER,
        "Workload API updates accepted.",
        _of_workload_api(lambda state: state.updates),
    ),
    MetricFamily(
        "tunnel_workload_api_rejected_updates",
        _COUNTER,
        "Workload API updates rejected.",
        _of_workload_api(lambda state: state.rejected),
    ),
    MetricFamily(
        "tunnel_workload_api_errors",
        _COUNTER,
        "Workload API streams that failed, by gRPC status code, from the first one on.",
        _read_stream_errors,
        ("code",),
    ),
    MetricFamily(
        "tunnel_workload_api_skipped_svids",
        _COUNTER,
        "SVIDs in accepted updates that were invalid and skipped.",
        _of_workload_api(lambda state: state.skipped),
    ),
    MetricFamily(
        "tunnel_workload_api_skipped_revocation_lists",
        _COUNTER,
        "Revocation lists in accepted updates that could not be used.",
        _of_workload_api(lambda state: state.skipped_lists),
    ),
    MetricFamily(
        "tunnel_trust_bundle_authorities",
        _GAUGE,
        "Authorities in the trust bundle of a trust domain.",
        _read_authorities,
        ("trust_domain",),
    ),
    MetricFamily(
        "tunnel_trust_bundle_expiry_timestamp_seconds",
        _GAUGE,
        "Unix time at which the first authority in the trust bundle of a trust domain expires.",
        _read_bundle_ends,
        ("trust_domain",),
    ),
    # -- the process
    MetricFamily(
        "tunnel_ready",
        _GAUGE,
        "Whether every listener would serve a client now, without regard to the targets.",
        _single(lambda facts: int(facts.is_ready)),
    ),
    _of_listener(
        "tunnel_listener_ready",
        _GAUGE,
        "Whether the listener would serve a client now, without regard to the targets.",
        _one(lambda one: int(one.is_ready)),
    ),
    _of_listener("tunnel_limit_used", _GAUGE, "How much of a limit is in use.", _read_limits, ("limit",)),
    _of_listener("tunnel_limit_max", _GAUGE, "The limit; absent if there is none.", _read_limit_sizes, ("limit",)),
    MetricFamily(
        "tunnel_status_port_connections_open",
        _GAUGE,
        "Open connections of the status port.",
        _single(lambda facts: facts.status_port.used),
    ),
    MetricFamily(
        "tunnel_status_port_connections_max",
        _GAUGE,
        "Maximum number of connections of the status port.",
        _single(lambda facts: facts.status_port.most),
    ),
    MetricFamily(
        "tunnel_status_port_refusals",
        _COUNTER,
        "Requests refused by the status port, by reason.",
        _read_web_refusals,
        ("reason",),
    ),
    MetricFamily(
        "tunnel_reloads",
        _COUNTER,
        "Reloads and updates of certificates, policy or configuration, by result.",
        _read_reloads,
        ("what", "result"),
    ),
    MetricFamily(
        "tunnel_last_reload_successful",
        _GAUGE,
        "Whether the last reload or update succeeded, or none was tried.",
        _read_last_reloads,
        ("what",),
    ),
    MetricFamily(
        "tunnel_event_loop_lag_seconds",
        _HISTOGRAM,
        "How late timers of the event loop fire, measured four times a second.",
        _single(lambda facts: facts.lag),
    ),
    MetricFamily(
        "tunnel_log_dropped_lines",
        _COUNTER,
        "Log lines dropped because the reader of the log was blocked.",
        lambda facts: _by_word(facts.dropped_lines),
        ("log",),
    ),
    MetricFamily(
        "tunnel_internal_errors",
        _COUNTER,
        "Unexpected exceptions; each has a traceback in the log.",
        _single(lambda facts: facts.counters.crashed),
    ),
    MetricFamily(
        "tunnel_build_info",
        _GAUGE,
        "Versions of the proxy, of Python and of OpenSSL; the value is 1.",
        lambda facts: [(tuple(facts.versions.values()), 1)],
        ("version", "python", "openssl"),
    ),
)
