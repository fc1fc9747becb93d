"""The families under our own names as OpenMetrics 1.0 or in Prometheus text format 0.0.4.

Both are written by one function: the client library needs five times as long, and the thread that encodes shares the
interpreter with the event loop.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator

from tunnel.lazy_dataclass import dataclass
from tunnel.status.exposition import PROMETHEUS_TYPE, encode_head, encode_labels, encode_value
from tunnel.status.histogram import HistogramReading
from tunnel.status.metric_facts import ProcessFacts
from tunnel.status.metric_families import FAMILIES
from tunnel.status.metric_family import MetricFamily
from tunnel.status.prometheus import encode_process_families

OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_GZIP_LEVEL = 4
_BLOCK = 200  # lines between two pauses, without which the event loop would wait up to 5 ms for the interpreter each time
_PAUSE = 0.0001  # seconds


@dataclass(frozen=True, slots=True)
class MetricsFormat:
    """What a client accepts."""

    is_openmetrics: bool = False
    is_gzip: bool = False

    @property
    def content_type(self) -> str:
        """The content type of the response."""
        return OPENMETRICS_TYPE if self.is_openmetrics else PROMETHEUS_TYPE


def encode_metrics(facts: ProcessFacts, chosen: MetricsFormat) -> bytes:
    """Encode our families and those of the process; blocks, so not for the thread of the event loop."""
    lines: list[str] = []
    for number, line in enumerate(_encode_families(facts, is_openmetrics=chosen.is_openmetrics), 1):
        lines.append(line)
        if number % _BLOCK == 0:
            time.sleep(_PAUSE)
    body = "".join(lines).encode(errors="replace") + encode_process_families(is_openmetrics=chosen.is_openmetrics)
    return gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0) if chosen.is_gzip else body


def _encode_families(facts: ProcessFacts, *, is_openmetrics: bool) -> Iterator[str]:
    for family in FAMILIES:
        name = family.name if is_openmetrics else family.series_name
        yield encode_head(name, family.type.value, family.help)
        if is_openmetrics and family.unit:
            yield f"# UNIT {name} {family.unit}\n"
        yield from _encode_samples(family, facts)


def _encode_samples(family: MetricFamily, facts: ProcessFacts) -> Iterator[str]:
    name = family.series_name
    for values, value in family.read(facts):
        labels = encode_labels(zip(family.labels, values, strict=True))
        if isinstance(value, HistogramReading):
            yield from _encode_histogram(name, labels, value)
        else:
            yield f"{name}{{{labels}}} {encode_value(value)}\n" if labels else f"{name} {encode_value(value)}\n"


def _encode_histogram(name: str, labels: str, seen: HistogramReading) -> Iterator[str]:
    start, braces = f"{labels}," if labels else "", f"{{{labels}}}" if labels else ""
    for bound, count in zip(seen.bounds, seen.buckets, strict=True):
        yield f'{name}_bucket{{{start}le="{bound!r}"}} {count}\n'
    yield f'{name}_bucket{{{start}le="+Inf"}} {seen.count}\n'
    yield f"{name}_sum{braces} {seen.total!r}\n"
    yield f"{name}_count{braces} {seen.count}\n"


def accepts_openmetrics(accepted: str) -> bool:
    """Whether an Accept header prefers OpenMetrics 1.0 to the text format (RFC 9110, 12.5.1)."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for offer in accepted.lower().split(","):
        media_type, *parameters = (part.strip() for part in offer.split(";"))
        values = dict(part.replace(" ", "").partition("=")[::2] for part in parameters)
        is_known = media_type == "text/plain" or values.get("version", "1.0.0").strip('"') == "1.0.0"
        if media_type in weights and is_known:
            weights[media_type] = max(weights[media_type], _parse_weight(values.get("q", "1")))
    openmetrics, text = weights.values()
    return openmetrics > 0 and openmetrics >= text


def _parse_weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
