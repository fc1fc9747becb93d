"""A snapshot in Prometheus text format, with the metrics of the process that prometheus_client provides.

Our own families are not written by the library: it would rename a counter whose name does not end in `_total`, and some of
ghostunnel's do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from tunnel.status.durations import Distribution
from tunnel.status.exposition import encode_head, encode_sample, legal_name
from tunnel.status.metric_definitions import Kind, Metric
from tunnel.status.metric_reading import MetricReading
from tunnel.status.snapshot import Snapshot

_TYPES = {
    Kind.COUNTER: "counter",
    Kind.LEVEL: "gauge",
    Kind.GAUGE: "gauge",
    Kind.TIMER: "histogram",
    Kind.HISTOGRAM: "histogram",
}


def encode_prometheus(snapshot: Snapshot, prefix: str) -> bytes:
    """All metrics; those of the process and of the interpreter have the library's names, without the prefix.

    Not for the thread of the event loop: the library reads /proc for each open descriptor, which takes 40 ms for 20000.
    """
    lines = "".join(
        line for metric, readings in groupby(snapshot.readings, _metric_of) for line in _family(metric, readings, prefix)
    )
    return lines.encode(errors="replace") + generate_latest(REGISTRY)


def encode_process_families(*, is_openmetrics: bool) -> bytes:
    """The metrics of the process and of the interpreter, which end the document; blocks as `encode_prometheus` does."""
    if not is_openmetrics:
        return generate_latest(REGISTRY)
    encoded: bytes = openmetrics.generate_latest(REGISTRY)  # type: ignore[no-untyped-call]
    return encoded


def _metric_of(reading: MetricReading) -> Metric:
    return reading.metric


def _family(metric: Metric, readings: Iterable[MetricReading], prefix: str) -> Iterator[str]:
    name = legal_name(f"{prefix}_{metric.name}" if prefix else metric.name) + metric.suffix
    yield encode_head(name, _TYPES[metric.kind], metric.help)
    for reading in readings:
        if isinstance(reading.value, Distribution):
            yield from _histogram(name, reading.value)
            if metric.kind is Kind.TIMER:
                yield from _sample_gauges(name, reading.value)
        else:
            yield encode_sample(name, reading.value, reading.labels)


def _histogram(name: str, seen: Distribution) -> Iterator[str]:
    for bound, count in zip(seen.bounds, seen.buckets, strict=True):
        yield encode_sample(f"{name}_bucket", count, {"le": str(bound)})
    yield encode_sample(f"{name}_bucket", seen.count, {"le": "+Inf"})
    yield encode_sample(f"{name}_sum", seen.total)
    yield encode_sample(f"{name}_count", seen.count)


def _sample_gauges(name: str, seen: Distribution) -> Iterator[str]:
    """Ghostunnel's gauges of a timer; unlike a histogram they cannot be added over processes."""
    sample, rates = seen.sample, seen.rates
    gauges = {
        "min": (sample.minimum, "Minimum of a sample of recent values"),
        "max": (sample.maximum, "Maximum of a sample of recent values"),
        "mean": (sample.mean, "Mean of a sample of recent values"),
        "variance": (sample.variance, "Variance of a sample of recent values"),
        "std_dev": (sample.deviation, "Standard deviation of a sample of recent values"),
        "rate1": (rates.one_minute, "Events per second, averaged over one minute"),
        "rate5": (rates.five_minutes, "Events per second, averaged over five minutes"),
        "rate15": (rates.fifteen_minutes, "Events per second, averaged over fifteen minutes"),
        "rate_mean": (rates.mean, "Events per second since the start"),
    }
    for suffix, (value, text) in gauges.items():
        yield encode_head(f"{name}_{suffix}", "gauge", f"{text}, see {name}.")
        yield encode_sample(f"{name}_{suffix}", value)
