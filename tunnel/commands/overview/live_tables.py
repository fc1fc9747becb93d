"""The tables of `tunnel top`: their columns, rows and orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunnel.commands.overview.quantities import UNKNOWN, describe_age, describe_byte_rate, describe_rate
from tunnel.commands.overview.rates import NO_RATE, OverviewRates, TrafficRate
from tunnel.commands.overview.report import describe_last_seen, describe_state, describe_targets, describe_use
from tunnel.commands.overview.styled import Line, LineStyle
from tunnel.commands.overview.table import Column
from tunnel.lazy_dataclass import dataclass
from tunnel.status.overview_reading import ListenerSummary, PeerSummary, ProxySummary, RefusalSummary


@dataclass(frozen=True, slots=True)
class Feed:
    """The newest overview, and what is known of the connection to the proxy."""

    place: str
    overview: ProxySummary
    rates: OverviewRates
    fault: str = ""  # why there is no newer overview; "" if the last query was answered
    answered: str = ""  # the time of the last answer
    silence: float = 0.0  # seconds since the last answer


@dataclass(frozen=True, slots=True)
class LiveRow:
    """One row of a table, its values for each order, and the lines below it."""

    cells: tuple[str, ...]
    keys: tuple[Any, ...]  # one for each order, each comparable with the same key of another row
    style: LineStyle = LineStyle.PLAIN
    notes: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveTable:
    """One table: its rows are made from the feed; `orders` are the titles of columns by which it can be sorted."""

    title: str
    columns: tuple[Column, ...]
    orders: tuple[str, ...]
    rows: Callable[[Feed], list[LiveRow]]


def _listener_rows(feed: Feed) -> list[LiveRow]:
    return [_listener_row(one, feed.rates.listeners.get(one.name, NO_RATE)) for one in feed.overview.listeners]


def _listener_row(one: ListenerSummary, rate: TrafficRate) -> LiveRow:
    use, state = describe_use(one.open, one.connection_limit), describe_state(one)
    speeds = (describe_byte_rate(rate.forwarded), describe_byte_rate(rate.returned))
    counts = (describe_rate(rate.connections), describe_rate(rate.refusals), describe_rate(rate.failures))
    cells = (one.name, state, use, *counts, *speeds, describe_targets(one), one.direction, one.listen)
    keys = (
        one.name,
        -one.open,
        *map(_falling, (rate.connections, rate.refusals, rate.failures, rate.forwarded, rate.returned)),
    )
    problems = [one.problem] if one.problem and not one.is_ready else []
    problems += [f"target {target.name}: {target.error or 'unhealthy'}" for target in one.targets if not target.is_healthy]
    notes = tuple(Line(f"    {problem}", LineStyle.BAD) for problem in problems)
    return LiveRow(cells, keys, LineStyle.PLAIN if state == "ready" else LineStyle.BAD, notes)


def _peer_rows(feed: Feed) -> list[LiveRow]:
    rates = feed.rates.peers
    return [_peer_row(one, rates.get((one.listener, one.peer), NO_RATE), feed.overview.time) for one in feed.overview.peers]


def _peer_row(one: PeerSummary, rate: TrafficRate, now: float) -> LiveRow:
    speeds = (describe_byte_rate(rate.forwarded), describe_byte_rate(rate.returned))
    seen = describe_last_seen(one, now)
    counts = (str(one.open), describe_rate(rate.connections))
    cells = (one.peer or UNKNOWN, one.listener, *counts, *speeds, str(one.connections), seen)
    rising = (-one.open, *map(_falling, (rate.connections, rate.forwarded, rate.returned)), -one.connections)
    return LiveRow(cells, (*rising, one.peer), LineStyle.PLAIN if one.open else LineStyle.DIM)


def _refusal_rows(feed: Feed) -> list[LiveRow]:
    return [_refusal_row(one, feed.overview.time) for one in feed.overview.refusals]


def _refusal_row(one: RefusalSummary, now: float) -> LiveRow:
    cells = (describe_age(one.time, now), str(one.count), one.listener, one.source, one.peer or UNKNOWN, one.reason)
    admission = Line(f"    to admit this peer: {one.flag}", LineStyle.WARNING)
    notes = (admission if one.flag else Line(f"    {one.detail}", LineStyle.DIM),)
    return LiveRow(cells, (-(one.time or 0.0), -one.count, one.peer, one.reason), notes=notes)


def _falling(rate: float | None) -> float:
    """The key that sorts the highest rate first."""
    return 1.0 if rate is None else -rate


LISTENERS = LiveTable(
    "Listeners",
    (
        Column("NAME", 8),
        Column("STATE"),
        Column("OPEN", is_number=True),
        Column("CONN/S", is_number=True),
        Column("REFUSED/S", is_number=True, rank=1),
        Column("FAILED/S", is_number=True, rank=4),
        Column("FORWARDED/S", is_number=True, rank=2),
        Column("RETURNED/S", is_number=True, rank=3),
        Column("TARGET", 12, rank=5),
        Column("DIRECTION", rank=7),
        Column("LISTEN", 12, rank=6),
    ),
    ("NAME", "OPEN", "CONN/S", "REFUSED/S", "FAILED/S", "FORWARDED/S", "RETURNED/S"),
    _listener_rows,
)
PEERS = LiveTable(
    "Peers",
    (
        Column("PEER", 28),
        Column("LISTENER", 8, rank=2),
        Column("OPEN", is_number=True),
        Column("CONN/S", is_number=True, rank=1),
        Column("FORWARDED/S", is_number=True, rank=3),
        Column("RETURNED/S", is_number=True, rank=4),
        Column("CONNECTIONS", is_number=True, rank=6),
        Column("LAST SEEN", rank=5),
    ),
    ("OPEN", "CONN/S", "FORWARDED/S", "RETURNED/S", "CONNECTIONS", "PEER"),
    _peer_rows,
)
REFUSALS = LiveTable(
    "Recent refusals",
    (
        Column("LAST", rank=1),
        Column("COUNT", is_number=True, rank=3),
        Column("LISTENER", 8, rank=4),
        Column("SOURCE", 9, rank=2),
        Column("PEER", 28),
        Column("REASON"),
    ),
    ("LAST", "COUNT", "PEER", "REASON"),
    _refusal_rows,
)
TABLES = (LISTENERS, PEERS, REFUSALS)
