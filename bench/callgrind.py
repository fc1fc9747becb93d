"""Instructions and allocations of a process under `valgrind --tool=callgrind`."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError

ALLOCATORS = ("malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc")
NO_SYMBOL = "(no symbol)"
_NAME = re.compile(r"\((\d+)\)(?: (.*))?")
_ADDRESS = re.compile(r"0x[0-9a-f]+$")
_RECURSION = re.compile(r"'\d+$")
_COST = re.compile(r"(?:[+-]?\d+|\*) (\d+)$")


@dataclass(frozen=True, slots=True)
class Profile:
    """One dump: instructions by object and function, and calls of functions by the same names."""

    instructions: Counter[tuple[str, str]]
    calls: Counter[tuple[str, str]]

    def allocations(self) -> int:
        """Return the calls of the allocators of libc."""
        return sum(count for (_, function), count in self.calls.items() if function in ALLOCATORS)


def parse_profile(lines: Iterable[str]) -> Profile:
    """Parse a file of the callgrind format with line positions and one event."""
    names: dict[str, dict[str, str]] = {"ob": {}, "fn": {}}
    instructions, calls = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    here, called, callee, is_call = ["", ""], "", "", False
    for line in lines:
        key, equals, value = line.rstrip("\n").partition("=")
        if not equals:
            if cost := _COST.match(key):
                if not is_call:  # the line after `calls=` has the inclusive cost of the callee
                    instructions[here[0], here[1]] += int(cost[1])
                is_call = False
        elif key in ("ob", "cob"):
            name = _name(names["ob"], value).rpartition("/")[2]
            if key == "ob":
                here[0] = name
            else:
                called = name
        elif key == "fn":
            here[1] = _function(_name(names["fn"], value))
        elif key == "cfn":
            callee = _function(_name(names["fn"], value))
        elif key == "calls":
            calls[called or here[0], callee] += int(value.split()[0])
            called, is_call = "", True
    return Profile(instructions, calls)


def _name(known: dict[str, str], text: str) -> str:
    """Return a name, which is written once and then only by its number."""
    match = _NAME.match(text)
    if not match:
        return text
    if match[2] is not None:
        known[match[1]] = match[2]
    return known[match[1]]


def _function(name: str) -> str:
    return NO_SYMBOL if _ADDRESS.match(name) else _RECURSION.sub("", name)


def callgrind_command(output: Path) -> list[str]:
    """Return the beginning of a command line; nothing is counted before `start_counting`."""
    for program, package in (("valgrind", "valgrind"), ("vgdb", "valgrind")):
        if not shutil.which(program):
            raise BenchError(f"no {program} in the PATH; on Debian: apt-get install {package}")
    return ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}"]


def start_counting(pid: int) -> None:
    """Count instructions from now on."""
    _control(pid, "instrumentation on")


def take_profile(pid: int, output: Path) -> Profile:
    """Return the counts since the previous call, or since the start of counting."""
    before = set(_dumps(output))
    _control(pid, "dump")
    new = [path for path in _dumps(output) if path not in before]
    if len(new) != 1:
        raise BenchError(f"callgrind wrote {len(new)} dumps instead of one")
    with new[0].open(errors="replace") as lines:
        return parse_profile(lines)


def _dumps(output: Path) -> list[Path]:
    return list(output.parent.glob(f"{output.name}.*"))


def _control(pid: int, command: str) -> None:
    outcome = subprocess.run(
        ["vgdb", f"--pid={pid}", "--wait=30", *command.split()], capture_output=True, text=True, check=False, timeout=120
    )
    if outcome.returncode:
        raise BenchError(f"vgdb {command}: {outcome.stderr.strip() or outcome.returncode}")
