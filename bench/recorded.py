"""The recorded counts: a JSON file with the numbers of each environment in which they were taken."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from bench.counts import Counts

Environment = Mapping[str, str]
_CPU_FEATURES = ("abm", "avx", "avx2", "bmi1", "f16c", "rdrand", "rdseed")  # those that valgrind passes on


def read_environment() -> dict[str, str]:
    """Return what the number of instructions depends on, besides our code."""
    flags = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    features = set(flags[1].split() if flags else ())
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "python": " ".join(sys.version.split()),
        "packages": ", ".join(f"{name} {version(name)}" for name in ("cryptography", "cffi")),
        "libc": os.confstr("CS_GNU_LIBC_VERSION") or "unknown",
        "valgrind": valgrind.strip().removeprefix("valgrind-"),
        "processor": " ".join([platform.machine(), *(name for name in _CPU_FEATURES if name in features)]),
    }


@dataclass(frozen=True, slots=True)
class Recorded:
    """The content of the file."""

    system_calls: Mapping[str, Counts] = field(default_factory=dict)  # by unit; the same in every environment
    environments: tuple[tuple[Environment, Mapping[str, Counts]], ...] = ()

    def find(self, environment: Environment) -> Mapping[str, Counts] | None:
        """Return all counts by unit, if they were taken in this environment."""
        for known, units in self.environments:
            if known == environment:
                calls = self.system_calls
                return {unit: replace(counts, system_calls=calls[unit].system_calls) for unit, counts in units.items()}
        return None

    def differences(self, environment: Environment) -> str:
        """Return in what this environment differs from the most similar recorded one."""
        known = [one for one, _ in self.environments]
        nearest = max(known, key=lambda one: len(one.items() & environment.items()), default={})
        return "; ".join(
            f"{key} {environment[key]}, recorded {nearest.get(key)}"
            for key in environment
            if environment[key] != nearest.get(key)
        )

    def extended(self, environment: Environment, units: Mapping[str, Counts]) -> Recorded:
        """Return the record with the counts of this environment in place of its earlier ones."""
        others = [(known, counts) for known, counts in self.environments if known != environment]
        own = {unit: replace(counts, system_calls={}) for unit, counts in units.items()}
        calls = {unit: Counts(system_calls=counts.system_calls) for unit, counts in units.items()}
        return Recorded(calls, (*others, (environment, own)))


def read_record(path: Path) -> Recorded:
    """Return the record in a file."""
    document = json.loads(path.read_text())
    return Recorded(
        {unit: Counts(system_calls=calls) for unit, calls in document["system_calls"].items()},
        tuple(
            (one["environment"], {unit: Counts(**counts) for unit, counts in one["units"].items()})
            for one in document["environments"]
        ),
    )


def write_record(path: Path, recorded: Recorded) -> None:
    """Write the record; counts are rounded to what is repeatable."""
    document = {
        "system_calls": {unit: _rounded(counts.system_calls) for unit, counts in recorded.system_calls.items()},
        "environments": [
            {"environment": environment, "units": {unit: _encode(counts) for unit, counts in units.items()}}
            for environment, units in recorded.environments
        ],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _encode(counts: Counts) -> dict[str, object]:
    return {
        "instructions": _rounded(counts.instructions),
        "allocations": round(counts.allocations, 2),
        "functions": {name: round(count) for name, count in counts.functions.items()},
    }


def _rounded(counts: Mapping[str, float]) -> dict[str, float]:
    return {name: round(count, 2) for name, count in counts.items()}
