"""The metric families of listeners, of their peers and of their targets: name, type, help text, labels and reader.

A new family is one entry here or in metric_families.py, and one row in docs/metrics.md; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tunnel.errors import is_refusal
from tunnel.status.counters import WorkloadApiState
from tunnel.status.metric_facts import ListenerFacts, ProcessFacts
from tunnel.status.metric_family import COUNTER, GAUGE, HISTOGRAM, FamilyType, MetricFamily, Sample, Value, read_by_word
from tunnel.status.peer_table import PeerTraffic

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


def _read_outcomes(listener: ListenerFacts) -> Iterator[Sample]:
    for outcome, field in _OUTCOMES.items():
        yield (outcome,), getattr(listener.counters, field)


def _read_ends(listener: ListenerFacts) -> Iterator[Sample]:
    for name in ("close_notify", "fin_without_close_notify", "truncated"):
        yield (name,), getattr(listener.counters, name)
    yield from read_by_word(listener.counters.other_ends)


def _read_reasons(*, are_refusals: bool) -> ReadListener:
    def read(listener: ListenerFacts) -> Iterator[Sample]:
        for word, count in listener.counters.reasons.items():
            if is_refusal(word) == are_refusals:
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


LISTENER_FAMILIES: tuple[MetricFamily, ...] = (
    _of_listener("tunnel_connections_open", GAUGE, "Open connections, from accept on.", _one(lambda one: one.gauges.opened)),
    _of_listener("tunnel_connections_accepted", COUNTER, "Connections accepted.", _one(lambda one: one.counters.accepted)),
    _of_listener(
        "tunnel_connections",
        COUNTER,
        "Connections by outcome: relayed ones from the start of the relay on, others at their end.",
        _read_outcomes,
        ("outcome",),
    ),
    _of_listener("tunnel_relays_ended", COUNTER, "Ends of relayed TLS connections, by close reason.", _read_ends, ("reason",)),
    _of_listener(
        "tunnel_refusals",
        COUNTER,
        "Peers refused by a rule or a limit, by reason, from the first one on.",
        _read_reasons(are_refusals=True),
        ("reason",),
    ),
    _of_listener(
        "tunnel_failures",
        COUNTER,
        "Connections that failed in the handshake, the dial or the PROXY header, by reason, from the first one on.",
        _read_reasons(are_refusals=False),
        ("reason",),
    ),
    _of_listener(
        "tunnel_withdrawals",
        COUNTER,
        "Open connections that we closed because access was withdrawn, by reason, from the first one on.",
        lambda one: read_by_word(one.counters.withdrawals),
        ("reason",),
    ),
    _of_listener("tunnel_accept_errors", COUNTER, "Errors of accept.", _one(lambda one: one.counters.accept_errors)),
    _of_listener(
        "tunnel_handshake_duration_seconds",
        HISTOGRAM,
        "Time of each successful TLS handshake, without the waits for the first bytes and for a handshake slot.",
        _read_duration("handshake"),
    ),
    _of_listener(
        "tunnel_dial_duration_seconds",
        HISTOGRAM,
        "Time until a target was connected, with the resolution of its name.",
        _read_duration("dial"),
    ),
    _of_listener(
        "tunnel_connection_duration_seconds",
        HISTOGRAM,
        "Time from accept to close of each relayed connection.",
        _read_duration("connection"),
    ),
    _of_listener(
        "tunnel_forwarded_bytes",
        COUNTER,
        "Bytes of plaintext from accepted connections to the targets.",
        _one(lambda one: one.gauges.forwarded),
    ),
    _of_listener(
        "tunnel_returned_bytes",
        COUNTER,
        "Bytes of plaintext from the targets to accepted connections.",
        _one(lambda one: one.gauges.returned),
    ),
    _of_listener(
        "tunnel_plaintext_connections_open",
        GAUGE,
        "Open connections of plain clients, if they are permitted.",
        _one(lambda one: one.gauges.plain_opened if one.permits_plaintext or one.counters.plaintext else None),
    ),
    _of_listener(
        "tunnel_plaintext_connections",
        COUNTER,
        "Connections of plain clients, if they are permitted.",
        _one(lambda one: one.counters.plaintext if one.permits_plaintext or one.counters.plaintext else None),
    ),
    _of_peer("tunnel_peer_connections", COUNTER, "Relayed connections of a peer.", lambda one: one.connections),
    _of_peer("tunnel_peer_connections_open", GAUGE, "Open relayed connections of a peer.", lambda one: one.opened),
    _of_peer(
        "tunnel_peer_forwarded_bytes",
        COUNTER,
        "Bytes of plaintext from accepted connections to the targets, by peer.",
        lambda one: one.forwarded,
    ),
    _of_peer(
        "tunnel_peer_returned_bytes",
        COUNTER,
        "Bytes of plaintext from the targets to accepted connections, by peer.",
        lambda one: one.returned,
    ),
    _of_listener("tunnel_target_healthy", GAUGE, "Healthy addresses of a target.", _read_targets("healthy"), ("target",)),
    _of_listener(
        "tunnel_target_connections_open",
        GAUGE,
        "Connections to a target, with those that are being established.",
        _read_targets("opened"),
        ("target",),
    ),
    _of_listener(
        "tunnel_target_failures",
        COUNTER,
        "Failed connection attempts to a target, and failed health checks.",
        _read_targets("failures"),
        ("target",),
    ),
    _of_listener(
        "tunnel_identity_usable",
        GAUGE,
        "Whether our identity can be used for new connections.",
        _one(lambda one: int(one.gauges.is_identity_usable)),
    ),
    _of_listener(
        "tunnel_certificate_begin_timestamp_seconds",
        GAUGE,
        "Unix time at which the validity of our certificate begins.",
        _one(lambda one: one.identity.not_before),
    ),
    _of_listener(
        "tunnel_certificate_expiry_timestamp_seconds",
        GAUGE,
        "Unix time at which our certificate expires.",
        _one(lambda one: one.identity.not_after),
    ),
    _of_listener(
        "tunnel_certificate_rotations",
        COUNTER,
        "How often our certificate was replaced by another one.",
        _one(lambda one: one.identity.replaced),
    ),
    _of_listener(
        "tunnel_revocation_lists_expiry_timestamp_seconds",
        GAUGE,
        "Unix time at which the first revocation list expires.",
        _one(lambda one: one.gauges.lists_expiry),
    ),
    _of_listener(
        "tunnel_workload_api_up",
        GAUGE,
        "Whether the Workload API stream is open, its last update was accepted and no rotation is overdue.",
        _read_source(lambda state: int(not state.error)),
    ),
    _of_listener(
        "tunnel_workload_api_last_update_timestamp_seconds",
        GAUGE,
        "Unix time of the last accepted Workload API update.",
        _read_source(lambda state: state.last_update),
    ),
    _of_listener(
        "tunnel_listener_ready",
        GAUGE,
        "Whether the listener would serve a client now, without regard to the targets.",
        _one(lambda one: int(one.is_ready)),
    ),
    _of_listener("tunnel_limit_used", GAUGE, "How much of a limit is in use.", _read_limits, ("limit",)),
    _of_listener("tunnel_limit_max", GAUGE, "The limit; absent if there is none.", _read_limit_sizes, ("limit",)),
)
