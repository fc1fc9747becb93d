"""Readings of the metrics of each listener and of its targets.

Labels are names of the configuration only: their number has a limit, that of peers has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tunnel.errors import is_refusal
from tunnel.lazy_dataclass import dataclass
from tunnel.status import metric_definitions as metrics
from tunnel.status.counters import EXPORTS, Counters, TargetGauges, TunnelGauges
from tunnel.status.metric_reading import MetricReading, ReadingScope

_OUTCOMES = tuple(name for name, export in EXPORTS.items() if export.metric is metrics.OUTCOMES)
_UNUSUAL = re.compile(r"[^a-zA-Z0-9_-]")  # in one part of a dotted name


@dataclass(frozen=True, slots=True)
class ListenerMeasurement:
    """What is measured of one listener."""

    name: str
    counters: Counters
    gauges: TunnelGauges
    targets: tuple[TargetGauges, ...] = ()


def read_listeners(listeners: Sequence[ListenerMeasurement]) -> Iterator[MetricReading]:
    """The readings of each listener and of its targets."""
    for listener, word in zip(listeners, _words([one.name for one in listeners]), strict=True):
        labels = {"listener": listener.name}
        yield from _of_listener(listener, ReadingScope(f"listener.{word}", labels))
        for target, target_word in zip(listener.targets, _words([one.name for one in listener.targets]), strict=True):
            scope = ReadingScope(f"listener.{word}.target.{target_word}", labels | {"target": target.name})
            yield MetricReading(metrics.TARGET_HEALTHY, target.healthy, scope=scope)
            yield MetricReading(metrics.TARGET_CONNECTIONS, target.opened, scope=scope)
            yield MetricReading(metrics.TARGET_FAILURES, target.failures, scope=scope)


def _of_listener(listener: ListenerMeasurement, scope: ReadingScope) -> Iterator[MetricReading]:
    """Without outcomes and reasons that have not occurred: with all of them, a listener would have more than 100 series."""
    counters, gauges = listener.counters, listener.gauges
    yield MetricReading(metrics.LISTENER_ACCEPTED, counters.accepted, scope=scope)
    yield MetricReading(metrics.LISTENER_RELAYED, counters.relayed, scope=scope)
    yield MetricReading(metrics.LISTENER_FAILED, counters.failed, scope=scope)
    yield MetricReading(metrics.LISTENER_CONNECTIONS, gauges.opened, scope=scope)
    if counters.plaintext:
        yield MetricReading(metrics.LISTENER_PLAINTEXT, gauges.plain_opened, scope=scope)
    yield MetricReading(metrics.LISTENER_FORWARDED, gauges.forwarded, scope=scope)
    yield MetricReading(metrics.LISTENER_RETURNED, gauges.returned, scope=scope)
    yield MetricReading(metrics.LISTENER_USABLE, int(gauges.is_identity_usable), scope=scope)
    if gauges.expiry is not None:
        yield MetricReading(metrics.LISTENER_EXPIRY, gauges.expiry, scope=scope)
    for name in _OUTCOMES:
        if count := getattr(counters, name):
            yield MetricReading(metrics.LISTENER_OUTCOMES, count, name, scope)
    for outcome, count in counters.other_ends.items():
        yield MetricReading(metrics.LISTENER_OUTCOMES, count, outcome, scope)
    for reason, count in counters.reasons.items():
        metric = metrics.LISTENER_REFUSALS if is_refusal(reason) else metrics.LISTENER_FAILURES
        yield MetricReading(metric, count, reason, scope)
    for cause, count in counters.withdrawals.items():
        yield MetricReading(metrics.LISTENER_WITHDRAWALS, count, cause, scope)


def _words(names: Sequence[str]) -> Iterator[str]:
    """Names as single parts of dotted names; a number is added to a part that occurs again."""
    used: set[str] = set()
    for name in names:
        word = base = _UNUSUAL.sub("_", name)
        number = 1
        while word in used:
            number += 1
            word = f"{base}_{number}"
        used.add(word)
        yield word
