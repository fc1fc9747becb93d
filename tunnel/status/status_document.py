"""The status document: the state of the process as one line of JSON.

ghostunnel's keys come first, in its order. None of our own contains the name of an older one, also in the array of listeners,
because scripts search for substrings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tunnel.lazy_dataclass import dataclass
from tunnel.status.process_state import (
    Identity,
    ListenerState,
    PlaintextState,
    ProcessState,
    Reload,
    TargetState,
    join_by_listener,
    list_names,
)
from tunnel.time_format import format_local_time

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time
_NS = 1_000_000_000
_MOST_ENTRIES = 10  # targets, and sources of plain connections, of each listener if the document is about several

Pairs = Iterator[tuple[str, Any]]
Errors = Mapping[str, str]  # of backends, by the name of the listener


@dataclass(frozen=True, slots=True)
class Service:
    """The part of the document that does not change while the process runs."""

    hostname: str
    revision: str
    compiler: str


def is_ok(state: ProcessState, errors: Errors) -> bool:
    """Whether a client would be served now: we listen, our identity is valid, and the backend is healthy, for each listener."""
    return state.is_ready and not any(one.name in errors for one in state.listeners)


def encode_document(service: Service, state: ProcessState, errors: Errors, now: int, *, has_listeners: bool = False) -> bytes:
    """The document as of `now`, in nanoseconds of the epoch; with `has_listeners` it describes each one."""
    pairs = dict(_pairs(service, state, errors, now))
    if has_listeners:
        most = _MOST_ENTRIES if len(state.listeners) > 1 else None
        pairs["listeners"] = [dict(_listener_pairs(one, state, errors, most)) for one in state.listeners]
    return json.dumps(pairs, separators=(",", ":")).encode()


def _pairs(service: Service, state: ProcessState, errors: Errors, now: int) -> Pairs:
    backend_error = _join(state, errors)
    ok, backend_ok = is_ok(state, errors), not backend_error
    yield "ok", ok
    yield "status", _status(ok)
    yield "listen_address", _text(", ".join(one.listen_address for one in state.listeners))
    yield "forward_address", _text(", ".join(one.forward_address for one in state.listeners))
    yield "backend_ok", backend_ok
    yield "backend_status", _status(backend_ok)
    if backend_error:
        yield "backend_error", backend_error
    yield "time", format_local_time(now)
    yield "last_reload", format_local_time(state.reload.at) if state.reload else _NEVER
    if service.hostname:
        yield "hostname", _text(service.hostname)
    yield "message", _message(state)
    yield "revision", service.revision
    yield "compiler", service.compiler
    if state.reload is not None:
        yield from _reload_pairs(state.reload)
    if state.identity is not None:
        yield from _identity_pairs(state.identity)
    if state.source_error is not None:
        yield "workload_api", _join(state, {one.name: one.source_error or "" for one in state.listeners}) or "ok"
    if state.identity_error:
        yield "identity_error", _join(state, {one.name: one.identity_error for one in state.listeners})


def _message(state: ProcessState) -> str:
    stopped = [one.name for one in state.listeners if one.is_stopped]
    if not stopped or state.is_ending:
        return state.phase.value
    return _text(f"{state.phase.value}; stopped: {list_names(stopped)}")


def _reload_pairs(reload: Reload) -> Pairs:
    for name, error in (
        ("certificate_reload", reload.certificates),
        ("policy_reload", reload.policy),
        ("config_reload", reload.config),
    ):
        if error is not None:
            yield name, f"failed: {_text(error)}" if error else "ok"


def _identity_pairs(identity: Identity) -> Pairs:
    if identity.spiffe_id:
        yield "spiffe_id", _text(identity.spiffe_id)
    yield "not_after", format_local_time(identity.not_after * _NS)
    yield "generation", identity.generation


def _listener_pairs(one: ListenerState, state: ProcessState, errors: Errors, most: int | None) -> Pairs:
    """Describe one listener, with at most `most` targets and sources of plain connections."""
    yield "name", _text(one.name)
    yield "mode", "server" if one.is_server else "client"
    yield "listen", _text(one.listen_address)
    yield "ready", state.is_listener_ready(one) and one.name not in errors
    if one.is_stopped:
        yield "stopped", True
    yield "connections", one.opened
    targets = sorted(one.targets, key=lambda target: target.is_healthy)  # what is cut off is healthy if possible
    yield "targets", [dict(_target_pairs(target)) for target in targets[:most]]
    if one.name in errors:
        yield "target_error", _text(errors[one.name])
    if one.identity is not None:
        yield from _identity_pairs(one.identity)
    if one.source_error is not None:
        yield "workload_api", _text(one.source_error) or "ok"
    if one.identity_error:
        yield "identity_error", _text(one.identity_error)
    if one.plaintext is not None:
        yield "plaintext", dict(_plaintext_pairs(one.plaintext, most))


def _target_pairs(target: TargetState) -> Pairs:
    yield "target", _text(target.name)
    yield "healthy", target.is_healthy
    yield "connections", target.opened
    yield "failures", target.failures
    if target.error:
        yield "error", _text(target.error)


def _plaintext_pairs(plaintext: PlaintextState, most: int | None) -> Pairs:
    yield "connections", plaintext.opened
    yield "total", plaintext.total
    yield (
        "sources",
        [
            {"source": _text(one.source), "total": one.connections, "last_seen": format_local_time(int(one.last_seen * _NS))}
            for one in plaintext.sources[:most]
        ],
    )
    yield "more_sources", len(plaintext.sources[most:] if most is not None else ()) + plaintext.forgotten


def _join(state: ProcessState, texts: Mapping[str, str]) -> str:
    """The texts of the listeners, as one."""
    return _text(join_by_listener({one.name: texts.get(one.name, "") for one in state.listeners}))


def _status(ok: bool) -> str:
    return "ok" if ok else "critical"


def _text(text: str) -> str:
    """Replace bytes of a path or a flag that are not UTF-8, as Go does: half a surrogate pair is not valid JSON."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
