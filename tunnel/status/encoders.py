"""A snapshot as ghostunnel's JSON and as lines of Graphite's plaintext protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tunnel.status.durations import Distribution
from tunnel.status.metric_definitions import Kind
from tunnel.status.metric_reading import MetricReading
from tunnel.status.snapshot import Snapshot

JSON_TYPE = "application/json"

_PERCENTILES = {"50-percentile": 0.5, "75-percentile": 0.75, "95-percentile": 0.95, "99-percentile": 0.99}
_MORE_PERCENTILES = _PERCENTILES | {"999-percentile": 0.999}
_BREAKING = re.compile(r"[\s\x00-\x1f\x7f]")  # would end a field or a line in Graphite's protocol

Field = tuple[str, int | float]


def encode_json(snapshot: Snapshot, prefix: str, hostname: str, now: float) -> bytes:
    """An array with one object per number: the body of `/_metrics` and of a posted report."""
    entries = [
        {"timestamp": int(now), "metric": name, "value": value, "hostname": hostname}
        for reading in _exported(snapshot)
        for name, value in _json_fields(reading, _join(prefix, reading.name))
    ]
    return json.dumps(entries, separators=(",", ":"), allow_nan=False).encode()


def _exported(snapshot: Snapshot) -> Iterator[MetricReading]:
    """Without reasons that have not occurred: each would be a time series, in Graphite a file."""
    for reading in snapshot.readings:
        if reading.value != 0 or not (reading.label and reading.metric.kind is Kind.COUNTER):
            yield reading


def _json_fields(reading: MetricReading, name: str) -> Iterator[Field]:
    seen = reading.value
    if isinstance(seen, Distribution):
        sample = seen.sample
        yield f"{name}.count", seen.count
        yield f"{name}.min", sample.minimum
        yield f"{name}.max", sample.maximum
        yield f"{name}.mean", sample.mean
        for word, fraction in _PERCENTILES.items():
            yield f"{name}.{word}", sample.percentile(fraction)
    else:
        yield name, seen


def encode_graphite(snapshot: Snapshot, prefix: str, now: float, previous: Snapshot | None = None) -> bytes:
    """Lines of Graphite's plaintext protocol; `count_ps` is per second since the previous snapshot, or since the start."""
    before = {reading.name: _count(reading) for reading in previous.readings} if previous else {}
    seconds = snapshot.uptime - (previous.uptime if previous else 0.0)
    lines = [
        f"{_BREAKING.sub('_', _join(prefix, reading.name))}.{word} {_number(value)} {int(now)}\n"
        for reading in _exported(snapshot)
        for word, value in _graphite_fields(reading, (_count(reading) - before.get(reading.name, 0), seconds))
    ]
    return "".join(lines).encode()


def _graphite_fields(reading: MetricReading, increase: tuple[int | float, float]) -> Iterator[Field]:
    seen, kind = reading.value, reading.metric.kind
    if kind is Kind.GAUGE and not isinstance(seen, Distribution):
        yield "value", seen
        return
    yield "count", _count(reading)
    if kind is not Kind.HISTOGRAM:
        grown, seconds = increase
        yield "count_ps", grown / seconds if seconds > 0 else 0.0
    if isinstance(seen, Distribution):
        yield from _spread_fields(seen)
        if kind is Kind.TIMER:
            yield from _rate_fields(seen)


def _spread_fields(seen: Distribution) -> Iterator[Field]:
    sample = seen.sample
    yield "min", sample.minimum
    yield "max", sample.maximum
    yield "mean", sample.mean
    yield "std-dev", sample.deviation
    for word, fraction in _MORE_PERCENTILES.items():
        yield word, sample.percentile(fraction)


def _rate_fields(seen: Distribution) -> Iterator[Field]:
    yield "one-minute", seen.rates.one_minute
    yield "five-minute", seen.rates.five_minutes
    yield "fifteen-minute", seen.rates.fifteen_minutes
    yield "mean-rate", seen.rates.mean


def _count(reading: MetricReading) -> int | float:
    return reading.value.count if isinstance(reading.value, Distribution) else reading.value


def _number(value: int | float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
