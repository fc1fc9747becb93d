"""The result of a run, as tables and as JSON.

A ratio is of two samples of the same round; the tables have the median of the rounds, with minimum and maximum.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from bench.goals import GOALS, OURS, TLS_PEERS, cheapest, judge, ratios
from bench.sample import Sample
from bench.workloads import Workload


@dataclass(frozen=True, slots=True)
class Result:
    """All samples of one run, and its settings."""

    machine: Mapping[str, str]
    versions: Mapping[str, tuple[str, str]]
    workloads: Sequence[Workload]
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)  # by workload and peer, one per round
    log_lines: dict[str, float] = field(default_factory=dict)  # per connection
    failures: dict[tuple[str, str], str] = field(default_factory=dict)  # by workload and peer

    @property
    def reference(self) -> str:
        """The first peer."""
        return next(iter(self.versions))

    @property
    def has_goals(self) -> bool:
        """Whether ours is measured beside another proxy, or with several workers."""
        return (OURS in self.versions and any(peer in self.versions for peer in TLS_PEERS)) or "workers2" in self.versions


def format_result(result: Result) -> str:
    """Return the tables in Markdown, after lines that describe the run."""
    parts = ["\n".join(_header(result)), "\n".join(_details(result))]
    if result.has_goals:
        parts += ["\n".join(_matrix(result))] if OURS in result.versions else []
        parts += ["\n".join(_goals(result))]
    return "\n\n".join(parts)


def _header(result: Result) -> Iterator[str]:
    yield from (f"{key}: {value}" for key, value in result.machine.items())
    for peer, (own, library) in result.versions.items():
        logged = f", {result.log_lines[peer]:.1f} log lines per connection" if peer in result.log_lines else ""
        yield f"{peer}: {own}, {library}{logged}"
    yield from (f"{workload} through {peer} failed: {error}" for (workload, peer), error in result.failures.items())
    others = [sample.others for samples in result.samples.values() for sample in samples if sample.busy]
    if others:
        yield f"others on the proxy's core: {statistics.median(others):.0%} of the time, at most {max(others):.0%}"
    sessions = {sample.session for samples in result.samples.values() for sample in samples if sample.session}
    yield from (f"negotiated: {session}" for session in sorted(sessions))


def _details(result: Result) -> Iterator[str]:
    """Every number of every peer, compared with the first peer."""
    heads = ["per unit of work", "peer", "user + system", f"/ {result.reference} (min-max)"]
    heads += ["rate, 1/s", "p50, ms", "p99, ms", "p99.9, ms", "errors"]
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for workload in result.workloads:
        title = _title(workload)
        for peer in result.versions:
            if samples := result.samples.get((workload.name, peer)):
                compared = ratios(result.samples, workload.name, peer, result.reference) if peer != result.reference else []
                yield "| " + " | ".join([title, peer, _cost(samples), format_ratio(compared), *_times(samples)]) + " |"
                title = ""


def _times(samples: Sequence[Sample]) -> Iterator[str]:
    for name in ("rate", "p50", "p99", "p999"):
        value = statistics.median(one.value(name) for one in samples)
        yield f"{value:.3g}" if value and value < 1000 else f"{value:,.0f}" if value else ""
    yield str(sum(one.errors for one in samples)) if samples[0].rate else ""


def _matrix(result: Result) -> Iterator[str]:
    """The cost of each peer, and ours compared with the cheapest one."""
    yield "| per unit of work | " + " | ".join(result.versions) + f" | {OURS} / cheapest (min-max) |"
    yield "|" + "---|" * (len(result.versions) + 2)
    for workload in result.workloads:
        known = {
            peer: result.samples[workload.name, peer] for peer in result.versions if (workload.name, peer) in result.samples
        }
        costs = [_number(_median_cost(known[peer])) if peer in known else "" for peer in result.versions]
        best = cheapest(result.samples, workload.name)
        compared = format_ratio(ratios(result.samples, workload.name, OURS, best)) if best else ""
        yield "| " + " | ".join([_title(workload), *costs, f"{compared} {best}" if compared else ""]) + " |"


def _goals(result: Result) -> Iterator[str]:
    titles = {workload.name: workload.title for workload in result.workloads}
    yield "| workload | goal | measured |"
    yield "|---|---|---|"
    for verdict in judge(result.samples, GOALS):
        yield f"| {titles[verdict.goal.workload]} | {verdict.goal.text()} | {verdict.text()} |"


def _title(workload: Workload) -> str:
    return f"{workload.title}, {workload.unit}"


def _median_cost(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.total for sample in samples)


def _cost(samples: Sequence[Sample]) -> str:
    user = statistics.median(sample.user for sample in samples)
    system = statistics.median(sample.system for sample in samples)
    split = f" = {_number(user)} + {_number(system)}" if system else ""
    return f"{_number(_median_cost(samples))}{split}"


def format_ratio(values: Sequence[float]) -> str:
    """Return the median with the range, or nothing."""
    return f"{statistics.median(values):.3f} ({min(values):.2f}-{max(values):.2f})" if values else ""


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def encode_result(result: Result) -> dict[str, object]:
    """Return the complete result for JSON, with every sample."""
    return {
        "machine": dict(result.machine),
        "versions": {peer: {"own": own, "library": library} for peer, (own, library) in result.versions.items()},
        "log_lines_per_connection": result.log_lines,
        "results": [
            {
                "workload": workload.name,
                "title": workload.title,
                "unit": workload.unit,
                "peer": peer,
                "samples": [asdict(sample) for sample in result.samples[workload.name, peer]],
            }
            for workload in result.workloads
            for peer in result.versions
            if (workload.name, peer) in result.samples
        ],
        "goals": [
            {
                **asdict(verdict.goal),
                "compared_with": verdict.compared_with,
                "value": verdict.value,
                "reached": verdict.is_reached,
            }
            for verdict in (judge(result.samples, GOALS) if result.has_goals else ())
        ],
    }
