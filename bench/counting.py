"""Counts per handshake, 64-byte echo and 16 KiB record of a checkout, taken under callgrind and under strace."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench.callgrind import Profile, callgrind_command, start_counting, take_profile
from bench.counts import Counts, count_profiles, count_system_calls
from bench.identity import Identity
from bench.lockstep import Lockstep, client_context
from bench.peers import Tunnel, await_ready, free_port
from bench.processes import find_traced, is_sleeping, read_own_usage, running
from bench.system_calls import parse_calls, strace_command

BATCHES, CALL_BATCHES = 6, 2
UNITS = {"handshake": 6, "echo": 100, "record": 40}  # of one batch: see count_profiles
SIZES = {"echo": 64, "record": 16384}  # bytes in each direction
_WARM_UP = 16
_START_SECONDS = 300.0
_LOOK_SECONDS, _LONGEST_IDLE = 0.0005, 30.0

T = TypeVar("T")


@contextlib.contextmanager
def _proxy(tool: Sequence[str], checkout: Path, identity: Identity, directory: Path) -> Iterator[tuple[int, Lockstep]]:
    """Run the proxy of a checkout with certificates from files under a tool; yields its PID."""
    port, log = free_port(), directory / "proxy.log"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0"}
    environment["PYTHONMALLOC"] = "malloc"  # otherwise Python takes most of its objects from blocks of its own, uncounted
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with contextlib.closing(Lockstep.listen()) as backend, log.open("wb") as output:
        flags = ["--connect-timeout", "60s", "--disable-landlock"]  # Landlock would deny the output of valgrind
        proxy = Tunnel("guard", is_on_disk=True, flags=tuple(flags), checkout=checkout)
        command = [*tool, *proxy.command(directory, identity, port=port, backend=backend.getsockname()[1])]
        with running(command, stdout=output, stderr=output, environment=environment, directory=checkout) as process:
            await_ready("tunnel", process, port, log, _START_SECONDS)
            pid = find_traced(process.pid)
            try:
                yield pid, Lockstep(client_context(identity), port, backend, log, partial(await_idle, pid))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)  # strace passes no signal on


def _run_units(lockstep: Lockstep, snapshot: Callable[[], T], batches: int) -> dict[str, list[T]]:
    """Return what `snapshot` returns for each batch of each unit: the costs since the previous call."""
    taken = {"handshake": _run_batches(lockstep.run_connection, UNITS["handshake"], snapshot, batches)}
    connection = lockstep.open()
    for unit, size in SIZES.items():
        taken[unit] = _run_batches(partial(connection.exchange, size), UNITS[unit], snapshot, batches)
    connection.close()
    return taken


def _run_batches(work: Callable[[], None], units: int, snapshot: Callable[[], T], batches: int) -> list[T]:
    for _ in range(_WARM_UP):
        work()
    snapshot()
    taken = []
    for _ in range(batches):
        for _ in range(units):
            work()
        taken.append(snapshot())
    return taken


def await_idle(pid: int) -> None:
    """Wait until a process sleeps and has not run between two looks.

    A thread that an event has woken is runnable even while other processes keep it from running.
    """
    deadline, used = time.monotonic() + _LONGEST_IDLE, -1.0
    while time.monotonic() < deadline:
        before, used = used, read_own_usage(pid)
        if is_sleeping(pid) and used == before:
            return
        time.sleep(_LOOK_SECONDS)


def measure(checkout: Path, identity: Identity, directory: Path) -> dict[str, Counts]:
    """Return the counts of each unit of work of a checkout."""
    own = Path(tempfile.mkdtemp(dir=directory))  # callgrind numbers its files from 1 again
    instructions = _measure_instructions(checkout, identity, own)
    calls = _measure_calls(checkout, identity, own)
    return {unit: replace(counts, system_calls=calls[unit].system_calls) for unit, counts in instructions.items()}


def _measure_instructions(checkout: Path, identity: Identity, directory: Path) -> dict[str, Counts]:
    output = directory / "callgrind.out"
    with _proxy(callgrind_command(output), checkout, identity, directory) as (pid, lockstep):
        start_counting(pid)

        def snapshot() -> Profile:
            await_idle(pid)
            return take_profile(pid, output)

        taken = _run_units(lockstep, snapshot, BATCHES)
    return {unit: count_profiles(profiles, UNITS[unit]) for unit, profiles in taken.items()}


def _measure_calls(checkout: Path, identity: Identity, directory: Path) -> dict[str, Counts]:
    output = directory / "strace.out"
    with _proxy(strace_command(output), checkout, identity, directory) as (pid, lockstep), output.open() as lines:

        def snapshot() -> Counter[str]:
            await_idle(pid)
            return parse_calls(lines)

        taken = _run_units(lockstep, snapshot, CALL_BATCHES)
    return {unit: count_system_calls(batches, UNITS[unit]) for unit, batches in taken.items()}
