"""Real processes: start one, wait for its words, see it end.

Knows pipes, signals and patience; must not know what is said beyond a proxy's listening line.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

LIMIT = 60.0  # seconds of every wait: generous, and never reached when things work
_SCRIPT = Path(sys.executable).with_name("tunnel")
_NEVER_LOGGED = ("Traceback", "internal error", "PRIVATE KEY-----")


class Process:
    """A child process whose lines are kept as they come."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        is_merged: bool = False,  # standard error is one with standard output
    ) -> None:
        self._name = " ".join(argv[:4])
        self._popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if is_merged else subprocess.PIPE,
            encoding="ascii",
            errors="backslashreplace",
            env=environ,
            cwd=cwd,
        )
        self._changed = threading.Condition()
        self.lines: list[str] = []
        self.complaints: list[str] = []  # standard error
        streams = (self._popen.stdout, self.lines), (self._popen.stderr, self.complaints)
        self._readers = [threading.Thread(target=self._read, args=pair) for pair in streams if pair[0] is not None]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    @property
    def resident_bytes(self) -> int:
        """Memory that the process holds now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """Time that the process has computed so far, in itself and in the kernel."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def descriptor_count(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def matches(self, pattern: str, since: int = 0) -> list[str]:
        """The lines so far that match."""
        return [line for line in self.lines[since:] if re.search(pattern, line)]

    def wait_for(self, pattern: str, since: int = 0, count: int = 1) -> re.Match[str]:
        """The match of the first line, or of the `count`-th, as soon as it is there."""
        wanted = re.compile(pattern)
        deadline = time.monotonic() + LIMIT
        with self._changed:
            while True:
                found = [match for line in self.lines[since:] if (match := wanted.search(line))]
                if len(found) >= count:
                    return found[count - 1]
                is_over = not any(reader.is_alive() for reader in self._readers)
                assert not is_over, f"{self._name} ended without a line {pattern!r}\n{self.transcript()}"
                left = deadline - time.monotonic()
                assert left > 0, f"{self._name} says no line {pattern!r} within {LIMIT:g}s\n{self.transcript()}"
                self._changed.wait(min(left, 1.0))

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def hush(self) -> None:
        """End its standard input."""
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):
            self._popen.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def exit_code(self) -> int:
        """How it ended, once it has; all lines are there then."""
        code = self._popen.wait(LIMIT)
        for reader in self._readers:
            reader.join(LIMIT)
        return code

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        if self.is_running:
            self.signal(signal.SIGTERM)
        return self.exit_code()

    def transcript(self) -> str:
        """Everything that it has said."""
        return "\n".join(["-- stdout", *self.lines, "-- stderr", *self.complaints])

    def close(self) -> None:
        """End it if it runs, and look for what must never be in a log."""
        self.hush()
        if self.is_running:
            self._popen.kill()
        self.exit_code()
        transcript = self.transcript()
        print(f"{self._name} [{self.pid}]\n{transcript}")  # shown by pytest when the test fails
        assert not [word for word in _NEVER_LOGGED if word in transcript]

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


class Proxy(Process):
    """A process of `tunnel server` or `tunnel client`."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, as soon as it does."""
        host, port = self.wait_for(r"listening for connections on (\S+):(\d+)$").groups()
        return host.strip("[]"), int(port)

    @property
    def target(self) -> str:
        """Its address as text for another one's --target."""
        return "{}:{}".format(*self.address)

    def reason(self) -> str:
        """What it said on standard error when it ended: one line, which the log has as well."""
        (line,) = self.complaints
        assert self.lines[-1].endswith(line)
        return line


def tunnel_argv(*arguments: str) -> list[str]:
    """The command line of the program under test, as it is installed."""
    return [str(_SCRIPT), *arguments] if _SCRIPT.exists() else [sys.executable, "-I", "-m", "tunnel", *arguments]


def bare_environment() -> dict[str, str]:
    """Our environment without an address of a Workload API, and without what our own client of it has put there."""
    return {name: value for name, value in os.environ.items() if name not in ("SPIFFE_ENDPOINT_SOCKET", "GRPC_VERBOSITY")}


def is_listening(path: Path) -> bool:
    """Whether somebody listens on a Unix socket: its file is there before that (proc_net(5): flag __SO_ACCEPTCON)."""
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return any(len(row) > 7 and row[7] == str(path) and int(row[3], 16) & 0x10000 for row in rows)


def eventually(is_so: Callable[[], bool], what: str) -> None:
    """Return once `is_so()` holds: for facts of the kernel that no line announces."""
    deadline = time.monotonic() + LIMIT
    while not is_so():
        assert time.monotonic() < deadline, f"not within {LIMIT:g}s: {what}"
        time.sleep(0.01)
