"""The status document: how the process fares, as one line of JSON.

Knows ghostunnel's keys and their order, and Go's notation of times; must not know HTTP, nor how the backend is
checked. Keys of our own come last, and none contains the name of an older one, since
scripts look for substrings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tunnel.status.process_state import Identity, ProcessState, Reload

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Service:
    """What stays the same while the process runs."""

    listen_address: str
    forward_address: str
    hostname: str
    revision: str
    compiler: str


def is_ok(standing: ProcessState, backend_error: str) -> bool:
    """Whether a client would be served now: we listen, our identity is valid, and the backend answers (an empty error)."""
    return standing.is_ready and not backend_error


def encode_document(service: Service, standing: ProcessState, backend_error: str, now: int) -> bytes:
    """The document as of `now`, in nanoseconds of the epoch."""
    pairs = _pairs(service, standing, backend_error, now)
    return json.dumps(dict(pairs), separators=(",", ":")).encode()


def encode_time(ns: int) -> str:
    """RFC 3339 in the local zone with as many digits as the fraction needs, as Go writes it."""
    second, fraction = divmod(ns, _NS)
    local = time.localtime(second)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + digits + _zone(local.tm_gmtoff)


def _zone(offset: int) -> str:
    if offset == 0:
        return "Z"
    hours, minutes = divmod(abs(offset) // 60, 60)
    return f"{'-' if offset < 0 else '+'}{hours:02d}:{minutes:02d}"


def _pairs(service: Service, standing: ProcessState, backend_error: str, now: int) -> Iterator[tuple[str, object]]:
    ok, backend_ok = is_ok(standing, backend_error), not backend_error
    yield "ok", ok
    yield "status", _word(ok)
    yield "listen_address", _text(service.listen_address)
    yield "forward_address", _text(service.forward_address)
    yield "backend_ok", backend_ok
    yield "backend_status", _word(backend_ok)
    if backend_error:
        yield "backend_error", _text(backend_error)
    yield "time", encode_time(now)
    yield "last_reload", encode_time(standing.reload.at) if standing.reload else _NEVER
    if service.hostname:
        yield "hostname", _text(service.hostname)
    yield "message", standing.phase.value
    yield "revision", service.revision
    yield "compiler", service.compiler
    if standing.reload is not None:
        yield from _reload_pairs(standing.reload)
    if standing.identity is not None:
        yield from _identity_pairs(standing.identity)
    if standing.source_error is not None:
        yield "workload_api", _text(standing.source_error) or "ok"
    if standing.identity_error:
        yield "identity_error", _text(standing.identity_error)


def _reload_pairs(reload: Reload) -> Iterator[tuple[str, object]]:
    for name, error in (("certificate_reload", reload.certificates), ("policy_reload", reload.policy)):
        if error is not None:
            yield name, f"failed: {_text(error)}" if error else "ok"


def _identity_pairs(identity: Identity) -> Iterator[tuple[str, object]]:
    if identity.spiffe_id:
        yield "spiffe_id", _text(identity.spiffe_id)
    yield "not_after", encode_time(identity.not_after * _NS)
    yield "generation", identity.generation


def _word(ok: bool) -> str:
    return "ok" if ok else "critical"


def _text(text: str) -> str:
    """Bytes of a path or a flag that are no UTF-8 become a mark, as in Go: half a surrogate pair is no JSON."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
