"""What one unit of work costs in instructions, allocations and system calls, and which of them have grown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.callgrind import Profile

LIMIT = 1.05
LARGEST = 40  # functions
_NAMED = 6  # of what has grown
_PARTS = (  # the first pattern that matches the name of the object
    ("OpenSSL", re.compile(r"_rust\.|lib(crypto|ssl)\.")),
    ("interpreter", re.compile(r"(lib)?python|.*\.cpython-")),
    ("libc", re.compile(r"lib(c|m|pthread)[.-]|ld-")),
    ("other", re.compile("")),
)


@dataclass(frozen=True, slots=True)
class Counts:
    """The costs of one unit; what is not counted is empty or 0."""

    instructions: Mapping[str, float] = field(default_factory=dict)  # by part of the program
    allocations: float = 0.0
    functions: Mapping[str, float] = field(default_factory=dict)  # instructions of the largest ones
    system_calls: Mapping[str, float] = field(default_factory=dict)  # by name

    def totals(self) -> dict[str, float]:
        """Return the numbers that are compared, by what they count."""
        parts = {f"instructions in {part}": count for part, count in self.instructions.items() if part != "other"}
        counted = {"instructions": sum(self.instructions.values()), **parts, "allocations": self.allocations}
        return {name: count for name, count in {**counted, "system calls": sum(self.system_calls.values())}.items() if count}


def count_profiles(profiles: Sequence[Profile], units: int) -> Counts:
    """Return the costs of one of the `units` of each profile: the lowest of each number.

    A timer or a garbage collection falls into some of the profiles only, on a slow machine into each. A batch has so many units
    that a timer adds at most 1 %, and is so short that most profiles have none.
    """
    by_part = [_by_part(profile) for profile in profiles]
    smallest = min(profiles, key=lambda profile: profile.instructions.total())
    functions = Counter({f"{name}:{function}": count for (name, function), count in smallest.instructions.items()})
    return Counts(
        {part: min(counts[part] for counts in by_part) / units for part, _ in _PARTS},
        min(profile.allocations() for profile in profiles) / units,
        {name: count / units for name, count in functions.most_common(LARGEST)},
    )


def count_system_calls(batches: Sequence[Counter[str]], units: int) -> Counts:
    """Return the system calls of one of the `units` of the batch with the fewest."""
    smallest = min(batches, key=lambda batch: batch.total())
    return Counts(system_calls={name: count / units for name, count in sorted(smallest.items())})


def _by_part(profile: Profile) -> Counter[str]:
    parts = Counter[str]()
    for (name, _), count in profile.instructions.items():
        parts[next(part for part, pattern in _PARTS if pattern.match(name))] += count
    return parts


def find_growth(recorded: Counts, measured: Counts, limit: float = LIMIT) -> Iterator[str]:
    """Yield a line for each number above the limit, with what has grown most; numbers that are not recorded are left out."""
    totals = measured.totals()
    for name, before in recorded.totals().items():
        now = totals.get(name, 0.0)
        if now > before * limit:
            change = f"{now:,.6g} instead of {before:,.6g} ({now / before - 1:+.1%})"
            yield f"{name}: {change}; grown most: {_culprits(name, recorded, measured)}"


def _culprits(name: str, recorded: Counts, measured: Counts) -> str:
    before, now = recorded.functions, measured.functions
    if name == "system calls":
        before, now = recorded.system_calls, measured.system_calls
    grown = Counter({one: count - before.get(one, 0.0) for one, count in now.items()})
    named = [f"{one} {growth:+,.4g}" for one, growth in grown.most_common(_NAMED) if growth > 0]
    return ", ".join(named) or "no single function"
