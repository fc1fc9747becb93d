"""The overview document: listeners, identities, peers and recent refusals of the process as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from typing import Any

from tunnel.config.model import direction_of
from tunnel.errors import is_refusal
from tunnel.lazy_dataclass import dataclass
from tunnel.status.counters import Counters, TunnelGauges
from tunnel.status.histogram import HistogramReading
from tunnel.status.identity_report import IdentityReport, Rotation
from tunnel.status.peer_table import PeerKey, PeerTraffic
from tunnel.status.process_state import ListenerState, ProcessState, TargetState, join_by_listener, list_names
from tunnel.status.recent_refusals import RecentRefusal

MAX_LISTED_PEERS = 100
_MAX_TARGETS = 10  # of each listener, if the document is about several

Pairs = Iterator[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class ListenerOverview:
    """One listener; `refused` are the connections that a rule or a limit did not admit, `failed` all others without a relay."""

    state: ListenerState
    is_ready: bool  # without regard to the targets
    problem: str  # why it is not ready
    accepted: int
    relayed: int
    refused: int
    failed: int
    handshakes: int
    forwarded: int
    returned: int
    connection_limit: int  # 0 for none
    handshakes_in_progress: int
    handshake_limit: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What the document is made from."""

    time: float  # Unix time
    hostname: str
    version: str
    pid: int
    started: float  # Unix time
    state: ProcessState
    listeners: tuple[ListenerOverview, ...]
    identities: Sequence[IdentityReport]
    peers: Mapping[PeerKey, PeerTraffic]
    refusals: Sequence[RecentRefusal]
    loop_lag: HistogramReading
    dropped_log_lines: int


def summarize_listener(
    process: ProcessState,
    state: ListenerState,
    counters: Counters,
    gauges: TunnelGauges,
    *,
    connection_limit: int = 0,
    handshakes_in_progress: int = 0,
    handshake_limit: int = 0,
) -> ListenerOverview:
    """Return the overview of one listener from its state and its counters."""
    return ListenerOverview(
        state=state,
        is_ready=process.is_listener_ready(state),
        problem=_listener_problem(process, state),
        accepted=counters.accepted,
        relayed=counters.relayed,
        refused=count_refused(counters),
        failed=count_failed(counters),
        handshakes=counters.handshakes,
        forwarded=gauges.forwarded,
        returned=gauges.returned,
        connection_limit=connection_limit,
        handshakes_in_progress=handshakes_in_progress,
        handshake_limit=handshake_limit,
    )


def count_refused(counters: Counters) -> int:
    """Return how many connections a rule or a limit per peer did not admit."""
    return sum(count for reason, count in counters.reasons.items() if is_refusal(reason))


def count_failed(counters: Counters) -> int:
    """Return how many other connections were not relayed; an error of accept is no connection."""
    return counters.failed - counters.accept_errors - count_refused(counters)


def describe_problem(state: ProcessState) -> str:
    """Return why the process is not ready, without regard to the targets; "" if it is."""
    if not state.is_serving:
        return state.phase.value
    stopped = [one.name for one in state.listeners if one.is_stopped]
    errors = join_by_listener({one.name: one.identity_error for one in state.listeners})
    return "; ".join(filter(None, (errors, f"stopped: {list_names(stopped)}" if stopped else "")))


def encode_overview(overview: Overview) -> bytes:
    """Return the document as one line; text that is not valid UTF-8 has replacement characters."""
    return encode_json_line(dict(_pairs(overview)))


def encode_json_line(value: object) -> bytes:
    """Return a value as one line of JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _pairs(overview: Overview) -> Pairs:
    state = overview.state
    yield "time", overview.time
    yield "hostname", overview.hostname
    yield "version", overview.version
    yield "pid", overview.pid
    yield "started", overview.started
    yield "phase", state.phase.value
    yield "ready", state.is_ready
    yield "problem", describe_problem(state)
    most = _MAX_TARGETS if len(overview.listeners) > 1 else None
    yield "listeners", [dict(_listener_pairs(one, most)) for one in overview.listeners]
    yield "identities", [dict(_identity_pairs(one)) for one in overview.identities]
    yield "trust_domains", list(_trust_domains(overview.identities))
    directions = {one.state.name: direction_of(is_server=one.state.is_server) for one in overview.listeners}
    listed = _busiest(overview.peers)
    yield "peers", [dict(_peer_pairs(key, overview.peers[key], directions)) for key in listed]
    yield "more_peers", len(overview.peers) - len(listed)
    yield "refusals", [dict(_refusal_pairs(one)) for one in overview.refusals]
    yield "loop_lag", encode_histogram(overview.loop_lag)
    yield "dropped_log_lines", overview.dropped_log_lines


def encode_histogram(lag: HistogramReading) -> dict[str, Any]:
    """Return a histogram with cumulative buckets."""
    return {"count": lag.count, "seconds": lag.total, "buckets": list(zip(lag.bounds, lag.buckets, strict=True))}


def _listener_pairs(one: ListenerOverview, most_targets: int | None) -> Pairs:
    state, identity = one.state, one.state.identity
    targets = sorted(state.targets, key=lambda target: target.is_healthy)  # what is cut off is healthy if possible
    yield "name", state.name
    yield "direction", direction_of(is_server=state.is_server)
    yield "listen", state.listen_address
    yield "targets", [_encode_target(target) for target in targets[:most_targets]]
    yield "ready", one.is_ready
    yield "problem", one.problem
    yield "spiffe_id", (identity.spiffe_id or None) if identity is not None else None
    yield "not_after", identity.not_after if identity is not None else None
    yield "open", state.opened
    for name in ("accepted", "relayed", "refused", "failed", "handshakes"):
        yield name, getattr(one, name)
    yield "forwarded_bytes", one.forwarded
    yield "returned_bytes", one.returned
    yield (
        "limits",
        {
            "connections": {"used": state.opened, "max": one.connection_limit},
            "handshakes": {"used": one.handshakes_in_progress, "max": one.handshake_limit},
        },
    )


def _encode_target(target: TargetState) -> dict[str, Any]:
    return {
        "target": target.name,
        "healthy": target.is_healthy,
        "open": target.opened,
        "failures": target.failures,
        "error": target.error,
    }


def _listener_problem(process: ProcessState, state: ListenerState) -> str:
    if not process.is_serving:
        return process.phase.value
    return "stopped" if state.is_stopped else state.identity_error


def _identity_pairs(one: IdentityReport) -> Pairs:
    yield "name", one.name
    yield "source", one.source
    yield "listeners", list(one.listeners)
    yield "subject", one.subject
    yield "serial", one.serial
    yield "not_before", one.not_before
    yield "not_after", one.not_after
    yield "generation", one.generation
    yield "problem", one.problem
    yield "rotations", [_encode_rotation(rotation) for rotation in one.rotations]


def _encode_rotation(rotation: Rotation) -> dict[str, Any]:
    return {"time": rotation.time, "serial": rotation.serial, "not_after": rotation.not_after}


def _trust_domains(identities: Iterable[IdentityReport]) -> Iterator[dict[str, Any]]:
    """Each trust bundle once, with the identities that have it."""
    names: dict[tuple[str, int, float | None], list[str]] = {}
    for identity in identities:
        for domain in identity.trust_domains:
            names.setdefault((domain.name, domain.authorities, domain.expires), []).append(identity.name)
    for (name, authorities, expires), own in sorted(names.items(), key=lambda item: item[0][0]):
        yield {"name": name, "authorities": authorities, "expires": expires, "identities": own}


def _busiest(peers: Mapping[PeerKey, PeerTraffic]) -> list[PeerKey]:
    """The peers that are listed: first those with open connections, of both groups those with the most bytes first."""

    def rank(key: PeerKey) -> tuple[bool, int]:
        return peers[key].opened > 0, peers[key].forwarded + peers[key].returned

    return nlargest(MAX_LISTED_PEERS, peers, key=rank)


def _peer_pairs(key: PeerKey, traffic: PeerTraffic, directions: Mapping[str, str]) -> Pairs:
    yield "listener", key.listener
    yield "direction", directions.get(key.listener, "")
    yield "peer", key.peer
    yield "open", traffic.opened
    yield "connections", traffic.connections
    yield "forwarded_bytes", traffic.forwarded
    yield "returned_bytes", traffic.returned
    yield "last_seen", traffic.last_seen


def _refusal_pairs(one: RecentRefusal) -> Pairs:
    yield "time", one.time
    yield "first_time", one.first_time
    yield "count", one.count
    yield "listener", one.listener
    yield "direction", direction_of(is_server=one.is_server)
    for name in ("source", "peer", "outcome", "reason", "detail", "flag", "entry"):
        yield name, getattr(one, name)
