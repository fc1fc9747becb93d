"""The status document: the state of the process as one line of JSON.

ghostunnel's keys come first, in its order. None of our own contains the name of an older one, because scripts search for
substrings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tunnel.status.process_state import Identity, ProcessState, Reload
from tunnel.time_format import format_local_time

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Service:
    """The part of the document that does not change while the process runs."""

    hostname: str
    revision: str
    compiler: str


def is_ok(state: ProcessState, backend_error: str) -> bool:
    """Whether a client would be served now: we listen, our identity is valid, and the backend is healthy (no error)."""
    return state.is_ready and not backend_error


def encode_document(service: Service, state: ProcessState, backend_error: str, now: int) -> bytes:
    """The document as of `now`, in nanoseconds of the epoch."""
    pairs = _pairs(service, state, backend_error, now)
    return json.dumps(dict(pairs), separators=(",", ":")).encode()


def _pairs(service: Service, state: ProcessState, backend_error: str, now: int) -> Iterator[tuple[str, object]]:
    ok, backend_ok = is_ok(state, backend_error), not backend_error
    yield "ok", ok
    yield "status", _status(ok)
    yield "listen_address", _text(", ".join(one.listen_address for one in state.listeners))
    yield "forward_address", _text(", ".join(one.forward_address for one in state.listeners))
    yield "backend_ok", backend_ok
    yield "backend_status", _status(backend_ok)
    if backend_error:
        yield "backend_error", _text(backend_error)
    yield "time", format_local_time(now)
    yield "last_reload", format_local_time(state.reload.at) if state.reload else _NEVER
    if service.hostname:
        yield "hostname", _text(service.hostname)
    yield "message", state.phase.value
    yield "revision", service.revision
    yield "compiler", service.compiler
    if state.reload is not None:
        yield from _reload_pairs(state.reload)
    if state.identity is not None:
        yield from _identity_pairs(state.identity)
    if state.source_error is not None:
        yield "workload_api", _text(state.source_error) or "ok"
    if state.identity_error:
        yield "identity_error", _text(state.identity_error)


def _reload_pairs(reload: Reload) -> Iterator[tuple[str, object]]:
    for name, error in (
        ("certificate_reload", reload.certificates),
        ("policy_reload", reload.policy),
        ("config_reload", reload.config),
    ):
        if error is not None:
            yield name, f"failed: {_text(error)}" if error else "ok"


def _identity_pairs(identity: Identity) -> Iterator[tuple[str, object]]:
    if identity.spiffe_id:
        yield "spiffe_id", _text(identity.spiffe_id)
    yield "not_after", format_local_time(identity.not_after * _NS)
    yield "generation", identity.generation


def _status(ok: bool) -> str:
    return "ok" if ok else "critical"


def _text(text: str) -> str:
    """Replace bytes of a path or a flag that are not UTF-8, as Go does: half a surrogate pair is not valid JSON."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
