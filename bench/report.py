"""The result of a run, as a table and as JSON.

A ratio is of two samples of the same round; the table has the median of the rounds, with minimum and maximum. The first peer is
the reference of the others; the targets are ratios to HAProxy.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from bench.workloads import Sample, Workload

_AIM = "haproxy"


@dataclass(frozen=True, slots=True)
class Result:
    """All samples of one run, and its settings."""

    machine: Mapping[str, str]
    versions: Mapping[str, tuple[str, str]]
    workloads: Sequence[Workload]
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)  # by workload and peer, one per round
    log_lines: dict[str, float] = field(default_factory=dict)  # per connection

    @property
    def reference(self) -> str:
        """The reference peer."""
        return next(iter(self.versions))

    def ratios(self, workload: Workload, peer: str) -> list[float]:
        """Return the ratios of the peer's cost to that of the reference, per round."""
        ours, theirs = self.samples.get((workload.name, peer), []), self.samples.get((workload.name, self.reference), [])
        return [one.total / other.total for one, other in zip(ours, theirs, strict=False) if other.total > 0]


def verdict(workload: Workload, ratio: float) -> str:
    """Return whether the target is reached."""
    if workload.target is None:
        return ""
    return f"{'reached' if ratio <= workload.target else 'MISSED'} (<= {workload.target:g})"


def format_result(result: Result) -> str:
    """Return the table in Markdown, after lines that describe the run."""
    lines = [f"{key}: {value}" for key, value in result.machine.items()]
    for peer, (own, library) in result.versions.items():
        logged = f", {result.log_lines[peer]:.1f} log lines per connection" if peer in result.log_lines else ""
        lines.append(f"{peer}: {own}, {library}{logged}")
    others = [sample.others for samples in result.samples.values() for sample in samples if sample.busy]
    if others:
        lines.append(f"others on the proxy's core: {statistics.median(others):.0%} of the time, at most {max(others):.0%}")
    sessions = {sample.session for samples in result.samples.values() for sample in samples if sample.session}
    lines += [f"negotiated: {session}" for session in sorted(sessions)]
    return "\n".join([*lines, "", *_rows(result)])


def _rows(result: Result) -> Iterator[str]:
    heads = ["per unit of work", "peer", "user + system", f"/ {result.reference} (min-max)"]
    has_targets = result.reference == _AIM
    heads += ["target"] if has_targets else []
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for workload in result.workloads:
        title = f"{workload.title}, {workload.unit}"
        for peer in result.versions:
            if samples := result.samples.get((workload.name, peer)):
                cells = [title, peer, _cost(samples), *_comparison(result, workload, peer)]
                yield "| " + " | ".join(cells if has_targets else cells[:-1]) + " |"
                title = ""


def _cost(samples: Sequence[Sample]) -> str:
    total = statistics.median(sample.total for sample in samples)
    user = statistics.median(sample.user for sample in samples)
    system = statistics.median(sample.system for sample in samples)
    split = f" = {_number(user)} + {_number(system)}" if system else ""
    return f"{_number(total)}{split}"


def _comparison(result: Result, workload: Workload, peer: str) -> list[str]:
    ratios = result.ratios(workload, peer) if peer != result.reference else []
    if not ratios:
        return ["", ""]
    middle = statistics.median(ratios)
    return [f"{middle:.3f} ({min(ratios):.2f}-{max(ratios):.2f})", verdict(workload, middle)]


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def encode_result(result: Result) -> dict[str, object]:
    """Return the complete result for JSON, with every sample."""
    rows = []
    for workload in result.workloads:
        for peer in result.versions:
            samples = result.samples.get((workload.name, peer), [])
            ratios = result.ratios(workload, peer) if samples and peer != result.reference else []
            rows.append(
                {
                    "workload": workload.name,
                    "unit": workload.unit,
                    "peer": peer,
                    "samples": [asdict(sample) for sample in samples],
                    "ratios": ratios,
                    "ratio": statistics.median(ratios) if ratios else None,
                    "target": workload.target,
                }
            )
    return {
        "machine": dict(result.machine),
        "versions": {peer: {"own": own, "openssl": library} for peer, (own, library) in result.versions.items()},
        "log_lines_per_connection": result.log_lines,
        "results": rows,
    }
