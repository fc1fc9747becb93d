"""Real processes: start one, wait for lines of its output, and stop it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

LIMIT = 60.0  # seconds of every wait: generous, and never reached when things work
_SCRIPT = Path(sys.executable).with_name("tunnel")
_NEVER_LOGGED = ("Traceback", "internal error", "PRIVATE KEY-----")


class Process:
    """A child process whose output lines are recorded."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        is_merged: bool = False,  # standard error is one with standard output
        pass_fds: Sequence[int] = (),
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
            pass_fds=pass_fds,
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
        """The resident memory of the process."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of the process so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def matches(self, pattern: str, since: int = 0) -> list[str]:
        """The matching lines so far."""
        return [line for line in self.lines[since:] if re.search(pattern, line)]

    def wait_for(self, pattern: str, since: int = 0, count: int = 1) -> re.Match[str]:
        """Wait for the first (or `count`-th) matching line and return the match."""
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
        """Wait for the exit code; all lines are recorded then."""
        code = self._popen.wait(LIMIT)
        for reader in self._readers:
            reader.join(LIMIT)
        return code

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.signal(signal.SIGKILL)
        self.exit_code()

    def stop(self) -> int:
        """Terminate it and return its exit code."""
        if self.is_running:
            self.signal(signal.SIGTERM)
        return self.exit_code()

    def transcript(self) -> str:
        """All of its output."""
        return "\n".join(["-- stdout", *self.lines, "-- stderr", *self.complaints])

    def close(self) -> None:
        """End it if it runs, and check that its log contains no secret."""
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
        """Its address, as soon as it listens."""
        host, port = self.wait_for(r"listening for connections on (\S+):(\d+)$").groups()
        return host.strip("[]"), int(port)

    @property
    def target(self) -> str:
        """Its address as a value of --target."""
        return "{}:{}".format(*self.address)

    def reason(self) -> str:
        """The error on standard error when it ended: one line, which is also in the log."""
        (line,) = self.complaints
        assert self.lines[-1].endswith(line)
        return line


# The number of workers of proxies whose tests do not choose it: `TUNNEL_TEST_WORKERS=2 pytest tests` runs the suite with two.
WORKERS = os.environ.get("TUNNEL_TEST_WORKERS", "1")


def tunnel_argv(*arguments: str) -> list[str]:
    """The command line of the installed program under test."""
    words = with_workers(arguments)
    return [str(_SCRIPT), *words] if _SCRIPT.exists() else [sys.executable, "-I", "-m", "tunnel", *words]


def with_workers(arguments: Sequence[str]) -> Sequence[str]:
    """Add the flag to each line of a server or client."""
    return [*_add_workers(arguments)] if WORKERS != "1" else arguments


def _add_workers(arguments: Sequence[str]) -> Iterator[str]:
    starts_line = True
    for number, word in enumerate(arguments):
        yield word
        if starts_line and word in ("server", "client") and not any(one.startswith("--workers") for one in arguments):
            yield f"--workers={WORKERS}"
        starts_line = word == "+" or (number == 0 and word == "run")


def bare_environment() -> dict[str, str]:
    """Our environment without the address of a Workload API, and without variables set by our client."""
    return {name: value for name, value in os.environ.items() if name not in ("SPIFFE_ENDPOINT_SOCKET", "GRPC_VERBOSITY")}


def descriptors_of(pid: int) -> list[str]:
    """What each descriptor of a process is."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def is_listening(path: Path) -> bool:
    """Whether a process listens on a Unix socket, whose file exists earlier (proc_net(5): flag __SO_ACCEPTCON)."""
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return any(len(row) > 7 and row[7] == str(path) and int(row[3], 16) & 0x10000 for row in rows)


def eventually(is_so: Callable[[], bool], what: str) -> None:
    """Wait until `is_so()` holds: for states of the kernel that no log line reports."""
    deadline = time.monotonic() + LIMIT
    while not is_so():
        assert time.monotonic() < deadline, f"not within {LIMIT:g}s: {what}"
        time.sleep(0.01)


# The program with a grace that a test can wait for.
SHORT_GRACE = """
import os, sys
from tunnel.cli.main import main
from tunnel.proxy import identity_feed
identity_feed.WITHDRAWAL_GRACE = 1.0
sys.exit(main(sys.argv[1:], os.environ))
"""
