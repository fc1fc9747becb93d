"""The text of `tunnel status`: the whole overview, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunnel.commands.overview.quantities import UNKNOWN, describe_age, describe_bytes, describe_moment, describe_seconds
from tunnel.commands.overview.styled import Line, LineStyle
from tunnel.commands.overview.table import Column, lay_out_table
from tunnel.status.overview_reading import (
    IdentitySummary,
    LimitSummary,
    ListenerSummary,
    PeerSummary,
    ProxySummary,
    RefusalSummary,
    TrustDomainSummary,
)
from tunnel.time_format import describe_span, describe_time

_INDENT = "  "
_LISTENERS = (
    Column("NAME", 8),
    Column("DIRECTION", rank=6),
    Column("LISTEN", 12, rank=5),
    Column("TARGET", 12, rank=4),
    Column("STATE"),
    Column("OPEN", is_number=True),
    Column("ACCEPTED", is_number=True, rank=3),
    Column("RELAYED", is_number=True, rank=9),
    Column("REFUSED", is_number=True, rank=1),
    Column("FAILED", is_number=True, rank=2),
    Column("FORWARDED", is_number=True, rank=7),
    Column("RETURNED", is_number=True, rank=8),
)
_IDENTITIES = (
    Column("SUBJECT", 28),
    Column("EXPIRES"),
    Column("LAST ROTATION", rank=1),
    Column("GENERATION", is_number=True, rank=4),
    Column("SOURCE", 12, rank=3),
    Column("LISTENERS", 9, rank=2),
    Column("SERIAL", 12, rank=5),
)
_TRUST_DOMAINS = (Column("NAME", 12), Column("AUTHORITIES", is_number=True, rank=1), Column("FIRST EXPIRY"))
_PEERS = (
    Column("PEER", 28),
    Column("LISTENER", 8, rank=1),
    Column("OPEN", is_number=True),
    Column("CONNECTIONS", is_number=True, rank=5),
    Column("FORWARDED", is_number=True, rank=3),
    Column("RETURNED", is_number=True, rank=4),
    Column("LAST SEEN", rank=2),
)
_REFUSALS = (
    Column("TIME", rank=2),
    Column("COUNT", is_number=True, rank=3),
    Column("LISTENER", 8, rank=4),
    Column("SOURCE", 9, rank=1),
    Column("PEER", 28),
    Column("REASON"),
)


def describe_overview(overview: ProxySummary, width: int | None = None) -> Iterator[Line]:
    """The lines of the report; tables are cut to `width` characters, access rules never."""
    yield from _process(overview)
    yield from _section(
        "Listeners",
        _LISTENERS,
        [_listener_row(one) for one in overview.listeners],
        width,
        [tuple(_listener_notes(one)) for one in overview.listeners],
    )
    yield from _section(
        "Identities",
        _IDENTITIES,
        [_identity_row(one, overview.time) for one in overview.identities],
        width,
        [tuple(_identity_notes(one)) for one in overview.identities],
    )
    yield from _section(
        "Trust domains", _TRUST_DOMAINS, [_trust_domain_row(one, overview.time) for one in overview.trust_domains], width
    )
    yield from _section("Peers", _PEERS, [_peer_row(one, overview.time) for one in overview.peers], width)
    if overview.more_peers:
        yield Line(f"{_INDENT}and {overview.more_peers} more peers", LineStyle.DIM)
    yield from _section(
        "Recent refusals",
        _REFUSALS,
        [_refusal_row(one) for one in overview.refusals],
        width,
        [tuple(_refusal_notes(one)) for one in overview.refusals],
    )


def describe_readiness(overview: ProxySummary) -> Line:
    """Whether the process is ready, or why it is not."""
    if overview.is_ready:
        return Line(f"ready: {overview.phase or 'no phase'}", LineStyle.GOOD)
    return Line(f"not ready: {overview.problem or overview.phase or 'no reason given'}", LineStyle.BAD)


def describe_use(open_now: int, limit: LimitSummary) -> str:
    """A number of open connections, with the limit if there is one."""
    return f"{open_now}/{limit.most}" if limit.most else str(open_now)


def describe_targets(one: ListenerSummary) -> str:
    """The target, or how many of several are healthy."""
    if len(one.targets) == 1:
        return one.targets[0].name
    return f"{sum(target.is_healthy for target in one.targets)} of {len(one.targets)} healthy" if one.targets else UNKNOWN


def describe_state(one: ListenerSummary) -> str:
    """Whether a listener is ready and its targets are healthy."""
    if not one.is_ready:
        return "not ready"
    return "ready" if any(target.is_healthy for target in one.targets) or not one.targets else "target down"


def describe_last_seen(one: PeerSummary, now: float) -> str:
    """`now` with an open connection, else how long ago the last one has ended."""
    return "now" if one.open else describe_age(one.last_seen or None, now)  # 0 if none has ended


def last_rotation(one: IdentitySummary) -> float | None:
    """When the identity was replaced for the last time; None if it is the first one."""
    return one.rotations[0] if len(one.rotations) > 1 else None


def _process(overview: ProxySummary) -> Iterator[Line]:
    yield Line(f"tunnel {overview.version or '(unknown version)'} on {overview.hostname or 'an unknown host'}", LineStyle.TITLE)
    state = describe_readiness(overview)
    yield Line(_INDENT + state.text, state.style)
    up = describe_span(max(overview.time - overview.started, 0.0))
    yield Line(f"{_INDENT}pid {overview.pid}, up {up}, started {describe_time(overview.started)}")
    lag = overview.lag.seconds / overview.lag.count if overview.lag.count else None
    yield Line(f"{_INDENT}event loop lag {describe_seconds(lag)} on average, {overview.dropped_log_lines} log lines dropped")


def _section(
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int | None,
    notes: Sequence[Sequence[Line]] = (),
) -> Iterator[Line]:
    """A title and a table, in which each row is followed by its notes."""
    yield Line("")
    yield Line(f"{title}: {len(rows)}" if rows else f"{title}: none", LineStyle.TITLE)
    if not rows:
        return
    header, lines = lay_out_table(columns, rows, None if width is None else max(width - len(_INDENT), 1))
    yield Line(_INDENT + header, LineStyle.HEADER)
    for index, line in enumerate(lines):
        yield Line(_INDENT + line)
        yield from notes[index] if notes else ()


def _note(text: str, style: LineStyle = LineStyle.PLAIN) -> Line:
    return Line(f"{_INDENT * 3}{text}", style)


def _listener_row(one: ListenerSummary) -> tuple[str, ...]:
    counts = (one.accepted, one.relayed, one.refused, one.failed)
    use = describe_use(one.open, one.connection_limit)
    row = (one.name, one.direction, one.listen, describe_targets(one), describe_state(one), use, *map(str, counts))
    return (*row, describe_bytes(one.forwarded), describe_bytes(one.returned))


def _listener_notes(one: ListenerSummary) -> Iterator[Line]:
    if one.problem and not one.is_ready:
        yield _note(f"problem: {one.problem}", LineStyle.BAD)
    if one.handshake_limit.most and one.handshake_limit.used >= one.handshake_limit.most:
        yield _note(f"all {one.handshake_limit.most} handshake slots are in use", LineStyle.WARNING)
    for target in one.targets:
        if len(one.targets) > 1 or not target.is_healthy:
            state = f"{'healthy' if target.is_healthy else 'unhealthy'}, {target.open} open, {target.failures} failures"
            style = LineStyle.PLAIN if target.is_healthy else LineStyle.BAD
            yield _note(f"target {target.name}: {state}{f': {target.error}' if target.error else ''}", style)


def _identity_row(one: IdentitySummary, now: float) -> tuple[str, ...]:
    return (
        one.subject or UNKNOWN,
        describe_moment(one.not_after, now),
        describe_age(last_rotation(one), now),
        str(one.generation),
        one.source,
        ",".join(one.listeners),
        one.serial,
    )


def _identity_notes(one: IdentitySummary) -> Iterator[Line]:
    if one.problem:
        yield _note(f"problem: {one.problem}", LineStyle.BAD)


def _trust_domain_row(one: TrustDomainSummary, now: float) -> tuple[str, ...]:
    return one.name, str(one.authorities), describe_moment(one.expires, now)


def _peer_row(one: PeerSummary, now: float) -> tuple[str, ...]:
    traffic = (describe_bytes(one.forwarded), describe_bytes(one.returned))
    return one.peer or UNKNOWN, one.listener, str(one.open), str(one.connections), *traffic, describe_last_seen(one, now)


def _refusal_row(one: RefusalSummary) -> tuple[str, ...]:
    time = describe_time(one.time) if one.time is not None else UNKNOWN
    return time, str(one.count), one.listener, one.source, one.peer or UNKNOWN, one.reason


def _refusal_notes(one: RefusalSummary) -> Iterator[Line]:
    if one.detail:
        yield _note(one.detail, LineStyle.DIM)
    if one.flag:
        yield _note(f"to admit this peer: {one.flag}", LineStyle.WARNING)
    if one.entry:
        yield _note(f"in a configuration file: {one.entry}", LineStyle.WARNING)
