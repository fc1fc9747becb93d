"""The load generator and the backend: compiled once, then controlled by lines on their standard input and output.

A wrong byte ends the generator, which is an error here: a run with corrupted data has no result.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.identity import Identity
from bench.processes import BenchError, running

SOURCES = Path(__file__).resolve().parent
_C_FLAGS = ("-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror")


def compile_load(directory: Path) -> Path:
    """Compile the load generator; raises BenchError with the first error of the compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise BenchError("no C compiler; on Debian: apt-get install gcc libc6-dev libssl-dev")
    directory.mkdir(parents=True, exist_ok=True)
    binary = directory / "load"
    sources = sorted(str(path) for path in SOURCES.glob("*.c"))
    command = [compiler, *_C_FLAGS, "-o", str(binary), *sources, "-lssl", "-lcrypto", "-lm"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode:
        complaint = next((line for line in outcome.stderr.splitlines() if "error" in line), outcome.stderr.strip())
        raise BenchError(f"the load generator does not compile (is libssl-dev installed?): {complaint}")
    return binary


@dataclass(frozen=True, slots=True)
class Generator:
    """The settings of every run of the load generator."""

    binary: Path
    identity: Identity
    cores: Sequence[int]

    @contextlib.contextmanager
    def backend(self) -> Iterator[int]:
        """Run the plain backend; yields its port."""
        with running([str(self.binary), "backend", "0"], cores=self.cores) as process:
            yield int(Conversation(process).expect("LISTENING")[0])

    @contextlib.contextmanager
    def client(self, mode: str, port: int, counts: Sequence[int] = (), *, is_plain: bool = False) -> Iterator[Conversation]:
        """Run once against the proxy on `port`, with TLS or without."""
        identity = self.identity
        files = ("-",) * 3 if is_plain else (identity.client_chain, identity.client_key, identity.authorities)
        argv = [str(self.binary), mode, f"127.0.0.1:{port}", *map(str, files), *map(str, counts)]
        with running(argv, cores=self.cores, stdin=subprocess.PIPE) as process:
            yield Conversation(process)


class Conversation:
    """Lines to and from one load generator process, which exits by itself when nothing makes progress."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def expect(self, word: str) -> list[str]:
        """Return the rest of the next line, which must begin with `word`; raises BenchError with the line otherwise."""
        assert self._process.stdout
        line = self._process.stdout.readline().decode().split()
        if line[:1] == [word]:
            return line[1:]
        assert self._process.stderr
        complaint = self._process.stderr.read().decode().strip() if not line else " ".join(line)
        raise BenchError(complaint or f"the load generator exited without output; expected {word}")

    def tell(self, line: str) -> None:
        """Send one line."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # the next `expect` reports the cause
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def hang_up(self) -> None:
        """Close its standard input."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
