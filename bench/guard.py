"""The regression guard: `python -m bench.guard` compares counts per unit of work with the recorded ones.

It counts instructions, allocations and system calls instead of measuring time, so that other processes change nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.counting import measure
from bench.counts import Counts, find_growth
from bench.identity import Identity, open_identity
from bench.peers import CHECKOUT
from bench.processes import BenchError
from bench.recorded import Recorded, read_environment, read_record, write_record

RECORD = CHECKOUT / "bench" / "counts.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Count and print; 1 if a number is above its limit, or if there is no result."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are stopped
    parser = argparse.ArgumentParser(
        prog="bench.guard", description="Instructions, allocations and system calls per unit of work."
    )
    parser.add_argument("--record", action="store_true", help="write the counts of this checkout to bench/counts.json")
    parser.add_argument("--before", metavar="COMMIT", help="compare with this commit or directory, counted in the same run")
    given = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="tunnel-guard-") as place, open_identity(Path(place)) as identity:
            return _record(identity, Path(place)) if given.record else _check(identity, Path(place), given.before)
    except BenchError as error:
        print(f"bench.guard: {error}", file=sys.stderr)
        return 1


def _record(identity: Identity, directory: Path) -> int:
    counts = measure(CHECKOUT, identity, directory)
    recorded = read_record(RECORD) if RECORD.exists() else Recorded()
    write_record(RECORD, recorded.extended(read_environment(), counts))
    print(format_counts(counts, counts))
    return 0


def _check(identity: Identity, directory: Path, before: str | None) -> int:
    counts = measure(CHECKOUT, identity, directory)
    base = _base(identity, directory, before)
    print(format_counts(base, counts))
    return report_growth(base, counts)


def report_growth(base: Mapping[str, Counts], counts: Mapping[str, Counts]) -> int:
    """Print what is above its limit; 1 if something is."""
    grown = [f"{unit}: {line}" for unit, recorded in base.items() for line in find_growth(recorded, counts[unit])]
    for line in grown:
        print(f"bench.guard: {line}", file=sys.stderr)
    return 1 if grown else 0


def _base(identity: Identity, directory: Path, before: str | None) -> Mapping[str, Counts]:
    """Return the counts to compare with."""
    if before:
        with checked_out(before) as checkout:
            return measure(checkout, identity, directory)
    recorded, environment = read_record(RECORD), read_environment()
    if known := recorded.find(environment):
        return known
    print(f"not the recorded environment: {recorded.differences(environment)}")
    try:
        with checked_out(_recording_commit()) as checkout:
            return measure(checkout, identity, directory)
    except BenchError as error:
        print(f"only system calls are compared: the recorded commit cannot be counted here: {error}")
        return recorded.system_calls


def _recording_commit() -> str:
    """Return the commit that contains both the recorded counts and the code which they describe."""
    commit = _git("log", "-1", "--format=%H", "--", str(RECORD)).decode().strip()
    if not commit:
        raise BenchError("no commit has changed bench/counts.json")
    print(f"compared with commit {commit[:12]}, which recorded the counts")
    return commit


@contextlib.contextmanager
def checked_out(name: str) -> Iterator[Path]:
    """Yield a directory with the package of a commit, or the directory itself if it is one."""
    if Path(name).is_dir():
        yield Path(name).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="tunnel-guard-") as place:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", name, "tunnel"))) as archive:
            archive.extractall(place)  # of our own repository
        yield Path(place)


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True, cwd=CHECKOUT).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        detail = error.stderr.decode(errors="replace").strip() if isinstance(error, subprocess.CalledProcessError) else error
        raise BenchError(f"git {arguments[0]}: {detail}") from error


def format_counts(base: Mapping[str, Counts], counts: Mapping[str, Counts]) -> str:
    """Return a table of the counts."""
    lines = ["| unit | count | before | now | change |", "|---|---|---|---|---|"]
    for unit, measured in counts.items():
        before = base[unit].totals()
        for name, now in measured.totals().items():
            old = f"{before[name]:,.6g} | {now:,.6g} | {now / before[name] - 1:+.2%}" if name in before else f" | {now:,.6g} | "
            lines.append(f"| {unit} | {name} | {old} |")
            unit = ""
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
