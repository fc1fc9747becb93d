"""The overview document as a client reads it: parsed into values, whatever version of the program has written it.

Every text becomes printable ASCII here, because it goes to a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from tunnel.errors import WireError, WireFault
from tunnel.lazy_dataclass import dataclass
from tunnel.log import one_line

T = TypeVar("T")

OVERVIEW_PATH = "/_overview"
_MAX_NUMBER = (1 << 63) - 1
_MAX_TEXT = 4096  # characters: an access rule with the longest SPIFFE ID fits
_MAX_SHOWN = 40  # characters of a wrong value in an error


@dataclass(frozen=True, slots=True)
class LimitSummary:
    """How much of a limit is in use; `most` is 0 if there is no limit."""

    used: int
    most: int


@dataclass(frozen=True, slots=True)
class TargetSummary:
    """One target of a listener."""

    name: str
    is_healthy: bool
    open: int
    failures: int
    error: str


@dataclass(frozen=True, slots=True)
class ListenerSummary:
    """One listener; counts are totals since the start, except `open`."""

    name: str
    direction: str
    listen: str
    targets: tuple[TargetSummary, ...]
    is_ready: bool
    problem: str
    spiffe_id: str
    not_after: float | None
    open: int
    accepted: int
    relayed: int
    refused: int
    failed: int
    handshakes: int
    forwarded: int  # bytes
    returned: int  # bytes
    connection_limit: LimitSummary
    handshake_limit: LimitSummary


@dataclass(frozen=True, slots=True)
class IdentitySummary:
    """One identity source; times are Unix times."""

    name: str
    source: str
    listeners: tuple[str, ...]
    subject: str
    serial: str
    not_before: float | None
    not_after: float | None
    generation: int
    problem: str
    rotations: tuple[float, ...]  # when credentials were put into use, the newest first; the last one is the start


@dataclass(frozen=True, slots=True)
class TrustDomainSummary:
    """The trust bundle of one trust domain."""

    name: str
    authorities: int
    expires: float | None


@dataclass(frozen=True, slots=True)
class PeerSummary:
    """Traffic with one peer through one listener."""

    listener: str
    peer: str
    open: int
    connections: int
    forwarded: int  # bytes
    returned: int  # bytes
    last_seen: float | None


@dataclass(frozen=True, slots=True)
class RefusalSummary:
    """Equal connections that were refused or failed, and the access rule that would admit the peer."""

    time: float | None  # of the last one
    count: int
    listener: str
    source: str
    peer: str
    reason: str
    detail: str
    flag: str
    entry: str


@dataclass(frozen=True, slots=True)
class LagSummary:
    """The lag of the event loop: a histogram with cumulative buckets."""

    count: int
    seconds: float
    buckets: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class ProxySummary:
    """The whole document."""

    time: float
    hostname: str
    version: str
    pid: int
    started: float
    phase: str
    is_ready: bool
    problem: str
    listeners: tuple[ListenerSummary, ...]
    identities: tuple[IdentitySummary, ...]
    trust_domains: tuple[TrustDomainSummary, ...]
    peers: tuple[PeerSummary, ...]
    more_peers: int
    refusals: tuple[RefusalSummary, ...]
    lag: LagSummary
    dropped_log_lines: int


def parse_overview(document: Mapping[str, object]) -> ProxySummary:
    """Parse the document: unknown keys are ignored, missing ones have defaults; raises WireError."""
    if "listeners" not in document:
        raise WireError(WireFault.MALFORMED, "overview: invalid document: no listeners; expected a status port of tunnel")
    fields = _ObjectFields(document, "")
    return ProxySummary(
        time=fields.number("time"),
        hostname=fields.text("hostname"),
        version=fields.text("version"),
        pid=fields.count("pid"),
        started=fields.number("started"),
        phase=fields.text("phase"),
        is_ready=fields.flag("ready"),
        problem=fields.text("problem"),
        listeners=fields.objects("listeners", _parse_listener),
        identities=fields.objects("identities", _parse_identity),
        trust_domains=fields.objects("trust_domains", _parse_trust_domain),
        peers=fields.objects("peers", _parse_peer),
        more_peers=fields.count("more_peers"),
        refusals=fields.objects("refusals", _parse_refusal),
        lag=_parse_lag(fields.inner("loop_lag")),
        dropped_log_lines=fields.count("dropped_log_lines"),
    )


class _ObjectFields:
    """The values of one JSON object; a key that is missing or null has the default of its type."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(place, value, "an object")
        self._values: Mapping[str, object] = value
        self._prefix = f"{place}." if place else ""

    def text(self, key: str) -> str:
        return self._parsed(key, _parse_text, "")

    def count(self, key: str) -> int:
        return self._parsed(key, _parse_count, 0)

    def number(self, key: str) -> float:
        return self._parsed(key, _parse_number, 0.0)

    def time(self, key: str) -> float | None:
        return self._parsed(key, _parse_number, None)

    def flag(self, key: str) -> bool:
        return self._parsed(key, _parse_flag, False)

    def inner(self, key: str) -> _ObjectFields:
        return self._parsed(key, lambda value, place: _ObjectFields(value, place), _ObjectFields({}, ""))

    def objects(self, key: str, parse: Callable[[_ObjectFields], T]) -> tuple[T, ...]:
        return self.values(key, lambda value, place: parse(_ObjectFields(value, place)))

    def values(self, key: str, parse: Callable[[object, str], T]) -> tuple[T, ...]:
        nothing: list[object] = []
        found = self._parsed(key, _parse_list, nothing)
        return tuple(parse(value, f"{self._prefix}{key}[{index}]") for index, value in enumerate(found))

    def _parsed(self, key: str, parse: Callable[[object, str], T], default: T) -> T:
        value = self._values.get(key)
        return default if value is None else parse(value, f"{self._prefix}{key}")


def _wrong(place: str, value: object, expected: str) -> WireError:
    shown = ascii(value)
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
    return WireError(WireFault.MALFORMED, f"overview: {place}: invalid value {shown}; expected {expected}")


def _parse_text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise _wrong(place, value, "a text")
    return to_ascii(value, _MAX_TEXT)


def to_ascii(text: str, limit: int) -> str:
    """One line of printable ASCII, cut to `limit` characters."""
    escaped = one_line(text[: limit + 1]).encode("ascii", "backslashreplace").decode()
    return escaped if len(escaped) <= limit else f"{escaped[:limit]}..."


def _parse_count(value: object, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_NUMBER:
        raise _wrong(place, value, "a whole number from 0 to 2^63-1")
    return value


def _parse_number(value: object, place: str) -> float:
    if not (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_NUMBER
    ):  # a NaN is neither more nor less
        raise _wrong(place, value, "a number of at most 2^63-1")
    return float(value)


def _parse_flag(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(place, value, "true or false")
    return value


def _parse_list(value: object, place: str) -> list[object]:
    if not isinstance(value, list):
        raise _wrong(place, value, "an array")
    return value


def _parse_listener(fields: _ObjectFields) -> ListenerSummary:
    limits = fields.inner("limits")
    return ListenerSummary(
        name=fields.text("name"),
        direction=fields.text("direction"),
        listen=fields.text("listen"),
        targets=fields.objects("targets", _parse_target),
        is_ready=fields.flag("ready"),
        problem=fields.text("problem"),
        spiffe_id=fields.text("spiffe_id"),
        not_after=fields.time("not_after"),
        open=fields.count("open"),
        accepted=fields.count("accepted"),
        relayed=fields.count("relayed"),
        refused=fields.count("refused"),
        failed=fields.count("failed"),
        handshakes=fields.count("handshakes"),
        forwarded=fields.count("forwarded_bytes"),
        returned=fields.count("returned_bytes"),
        connection_limit=_parse_limit(limits.inner("connections")),
        handshake_limit=_parse_limit(limits.inner("handshakes")),
    )


def _parse_limit(fields: _ObjectFields) -> LimitSummary:
    return LimitSummary(fields.count("used"), fields.count("max"))


def _parse_target(fields: _ObjectFields) -> TargetSummary:
    return TargetSummary(
        name=fields.text("target"),
        is_healthy=fields.flag("healthy"),
        open=fields.count("open"),
        failures=fields.count("failures"),
        error=fields.text("error"),
    )


def _parse_identity(fields: _ObjectFields) -> IdentitySummary:
    return IdentitySummary(
        name=fields.text("name"),
        source=fields.text("source"),
        listeners=fields.values("listeners", _parse_text),
        subject=fields.text("subject"),
        serial=fields.text("serial"),
        not_before=fields.time("not_before"),
        not_after=fields.time("not_after"),
        generation=fields.count("generation"),
        problem=fields.text("problem"),
        rotations=fields.objects("rotations", lambda rotation: rotation.number("time")),
    )


def _parse_trust_domain(fields: _ObjectFields) -> TrustDomainSummary:
    return TrustDomainSummary(fields.text("name"), fields.count("authorities"), fields.time("expires"))


def _parse_peer(fields: _ObjectFields) -> PeerSummary:
    return PeerSummary(
        listener=fields.text("listener"),
        peer=fields.text("peer"),
        open=fields.count("open"),
        connections=fields.count("connections"),
        forwarded=fields.count("forwarded_bytes"),
        returned=fields.count("returned_bytes"),
        last_seen=fields.time("last_seen"),
    )


def _parse_refusal(fields: _ObjectFields) -> RefusalSummary:
    return RefusalSummary(
        time=fields.time("time"),
        count=fields.count("count"),
        listener=fields.text("listener"),
        source=fields.text("source"),
        peer=fields.text("peer"),
        reason=fields.text("reason"),
        detail=fields.text("detail"),
        flag=fields.text("flag"),
        entry=fields.text("entry"),
    )


def _parse_lag(fields: _ObjectFields) -> LagSummary:
    return LagSummary(fields.count("count"), fields.number("seconds"), fields.values("buckets", _parse_bucket))


def _parse_bucket(value: object, place: str) -> tuple[float, int]:
    bound_and_count = _parse_list(value, place)
    if len(bound_and_count) != 2:
        raise _wrong(place, value, "a bound and a count")
    bound, count = bound_and_count
    return _parse_number(bound, f"{place}[0]"), _parse_count(count, f"{place}[1]")
