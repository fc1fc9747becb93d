"""The goals for `tunnel`: limits relative to the cheapest other proxy, to a plain TCP relay, or absolute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.sample import Sample

OURS = "tunnel"
CHEAPEST, TCP, ABSOLUTE, ONE_WORKER = "cheapest peer", "tcp", "", "workers1"
TLS_PEERS = ("haproxy", "nginx", "hitch", "stunnel", "ghostunnel")

Samples = Mapping[tuple[str, str], Sequence[Sample]]  # by workload and peer, one per round


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for one number of one workload."""

    workload: str
    field: str  # of a sample
    limit: float
    against: str = CHEAPEST
    is_minimum: bool = False

    def text(self) -> str:
        """Return the goal as text."""
        sign = ">=" if self.is_minimum else "<="
        return f"{self.field} {sign} {self.limit:g}{f' of {self.against}' if self.against else ''}"


GOALS = (
    *(Goal(name, "cost", 0.8) for name in ("handshake", "handshake16")),
    *(Goal(name, field, 1.0) for name in ("echo1", "echo32", "echo256") for field in ("cost", "p50", "p99")),
    Goal("upload", "cost", 0.9),
    Goal("upload", "cost", 1.0, TCP),
    Goal("download", "cost", 0.75),
    Goal("download", "cost", 1.0, TCP),
    Goal("idle", "cost", 28, ABSOLUTE),
    Goal("memory", "cost", 40, ABSOLUTE),
    Goal("start", "cost", 250, ABSOLUTE),
    Goal("exec", "cost", 350, ABSOLUTE),
    Goal("flag", "cost", 80, ABSOLUTE),
    Goal("rotations", "errors", 0, ABSOLUTE),
    Goal("scaling-handshake", "rate", 1.8, ONE_WORKER, is_minimum=True),
    Goal("scaling-bulk", "rate", 1.7, ONE_WORKER, is_minimum=True),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured for one goal: the median of the rounds, and the range."""

    goal: Goal
    compared_with: str  # the peer, or "" for an absolute limit
    value: float
    least: float
    most: float

    @property
    def is_reached(self) -> bool:
        return self.value >= self.goal.limit if self.goal.is_minimum else self.value <= self.goal.limit

    def text(self) -> str:
        """Return the value, its range and the verdict."""
        other = f" of {self.compared_with}" if self.compared_with else ""
        return f"{self.value:.3g} ({self.least:.3g}-{self.most:.3g}){other}: {'reached' if self.is_reached else 'MISSED'}"


def cheapest(samples: Samples, workload: str, field: str = "cost") -> str:
    """Return the proxy with TLS, other than ours, that has the lowest median of a number; "" if none was measured."""
    known = {peer: [one.value(field) for one in samples[workload, peer]] for peer in TLS_PEERS if samples.get((workload, peer))}
    return min(known, key=lambda peer: median(known[peer]), default="")


def ratios(samples: Samples, workload: str, peer: str, other: str, field: str = "cost") -> list[float]:
    """Return the ratios of a number of `peer` to that of `other`, of two samples of the same round each."""
    pairs = zip(samples.get((workload, peer), ()), samples.get((workload, other), ()), strict=False)
    return [one.value(field) / two.value(field) for one, two in pairs if two.value(field) > 0]


def judge(samples: Samples, goals: Sequence[Goal] = GOALS) -> list[Verdict]:
    """Return a verdict for each goal that was measured."""
    verdicts = []
    for goal in goals:
        ours = "workers2" if goal.against == ONE_WORKER else OURS
        other = cheapest(samples, goal.workload, goal.field) if goal.against == CHEAPEST else goal.against
        if goal.against == ABSOLUTE:
            values = [one.value(goal.field) for one in samples.get((goal.workload, ours), ())]
        else:
            values = ratios(samples, goal.workload, ours, other, goal.field)
        if values:
            verdicts.append(Verdict(goal, other, median(values), min(values), max(values)))
    return verdicts
