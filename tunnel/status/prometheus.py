"""A snapshot in Prometheus's text format, with what its client library knows of the process.

Knows the exposition format 0.0.4 and is the only place of prometheus_client; must not know who asks. Our own families are
written here and not by the library: it would rename a counter whose name does not end in `_total`, and some of ghostunnel's
do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from prometheus_client import REGISTRY, generate_latest

from tunnel.status.durations import Distribution
from tunnel.status.metric_definitions import Kind, Metric
from tunnel.status.snapshot import MetricReading, Snapshot

PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TYPES = {
    Kind.COUNTER: "counter",
    Kind.LEVEL: "gauge",
    Kind.GAUGE: "gauge",
    Kind.TIMER: "histogram",
    Kind.HISTOGRAM: "histogram",
}
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_:]")


def encode_prometheus(snapshot: Snapshot, prefix: str) -> bytes:
    """All metrics; those of the process and of the interpreter have the library's names, without the prefix.

    For any thread but the loop's: the library asks the kernel for each open descriptor, which takes 40 ms for 20000 of them.
    """
    lines = "".join(
        line for metric, readings in groupby(snapshot.readings, _metric_of) for line in _family(metric, readings, prefix)
    )
    return lines.encode() + generate_latest(REGISTRY)


def _metric_of(reading: MetricReading) -> Metric:
    return reading.metric


def _family(metric: Metric, readings: Iterable[MetricReading], prefix: str) -> Iterator[str]:
    name = _legal(f"{prefix}_{metric.name}" if prefix else metric.name) + metric.suffix
    yield from _head(name, metric.help, _TYPES[metric.kind])
    for reading in readings:
        if isinstance(reading.value, Distribution):
            yield from _histogram(name, reading.value)
            if metric.kind is Kind.TIMER:
                yield from _sampled(name, reading.value)
        else:
            labels = f'{{{metric.label}="{reading.label}"}}' if metric.label else ""
            yield f"{name}{labels} {reading.value}\n"


def _head(name: str, text: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {text}\n", f"# TYPE {name} {kind}\n"


def _histogram(name: str, seen: Distribution) -> Iterator[str]:
    for bound, count in zip(seen.bounds, seen.buckets, strict=True):
        yield f'{name}_bucket{{le="{bound}"}} {count}\n'
    yield f'{name}_bucket{{le="+Inf"}} {seen.count}\n'
    yield f"{name}_sum {seen.total}\n"
    yield f"{name}_count {seen.count}\n"


def _sampled(name: str, seen: Distribution) -> Iterator[str]:
    """Ghostunnel's gauges beside a timer; what they hold cannot be added up over processes, unlike a histogram."""
    sample, rates = seen.sample, seen.rates
    facts = {
        "min": (sample.minimum, "The least in a sample of recent ones"),
        "max": (sample.maximum, "The greatest in a sample of recent ones"),
        "mean": (sample.mean, "The mean of a sample of recent ones"),
        "variance": (sample.variance, "The variance of a sample of recent ones"),
        "std_dev": (sample.deviation, "The standard deviation of a sample of recent ones"),
        "rate1": (rates.one_minute, "How many a second, averaged over one minute"),
        "rate5": (rates.five_minutes, "How many a second, averaged over five minutes"),
        "rate15": (rates.fifteen_minutes, "How many a second, averaged over fifteen minutes"),
        "rate_mean": (rates.mean, "How many a second since the start"),
    }
    for word, (value, what) in facts.items():
        yield from _head(f"{name}_{word}", f"{what}, see {name}.", "gauge")
        yield f"{name}_{word} {value}\n"


def _legal(name: str) -> str:
    return _ILLEGAL.sub("_", f"_{name}" if name[:1].isdigit() else name)
