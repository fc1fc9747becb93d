"""TLS peers of five libraries, each a process that serves one connection per line of its input.

The peers are in `tls_stacks/`; `tls_stacks/peer.py` has the commands.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificate_files import Files
from tests.support.processes import Process, bare_environment
from tests.support.requirements import need, program
from tests.support.workloads import Workloads

_SOURCES = Path(__file__).with_name("tls_stacks")
_BUILD_LIMIT = 600.0  # seconds: Go compiles its library first


@dataclass(frozen=True)
class Result:
    """The data that one side received, and the end of its stream."""

    count: int
    digest: str
    end: str


class StackPeer:
    """One process, in the role of the TLS client or server."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._seen = 0
        self.port = int(self._next("(?:listening |started)(.*)") or 0)

    def begin(self, version: str, port: int, steps: str) -> None:
        """Serve one connection: a client connects to `port`, a server accepts the next one."""
        self.process.say(f"{version} {port} {steps}")

    def wait_ready(self) -> None:
        """Until it is at the step `wait`."""
        self._next("(ready)")

    def go_on(self) -> None:
        """Let it leave the step `wait`."""
        self.process.say("go")

    def result(self) -> Result:
        """The result of the connection, once it is over."""
        count, digest, end = self._next("done (.*)").split()
        return Result(int(count), digest, end)

    def _next(self, pattern: str) -> str:
        """The group of `pattern` in the next line, which must match."""
        line = self.process.wait_for("", self._seen).string
        self._seen += 1
        match = re.fullmatch(pattern, line)
        assert match is not None, line
        return match[1]


def _python(name: str) -> list[str]:
    return [sys.executable, str(_SOURCES / f"{name}_peer.py")]


def _gnutls(_directory: Path) -> list[str]:
    try:
        ctypes.CDLL("libgnutls.so.30")
    except OSError:
        need("no library libgnutls.so.30: install the Debian package libgnutls30")
    return _python("gnutls")


def _java(_directory: Path) -> list[str]:
    # A FIN without close_notify is an error, as for the other libraries. Connections are looked for among those of IPv4.
    flags = "-Dcom.sun.net.ssl.requireCloseNotify=true", "-Djava.net.preferIPv4Stack=true", "-XX:TieredStopAtLevel=1"
    return [program("java"), *flags, str(_SOURCES / "Peer.java")]


def _go(directory: Path) -> list[str]:
    made = directory / "go-peer"
    if not made.exists():
        environ = {"HOME": str(directory), **os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off"}
        subprocess.run(
            [program("go"), "build", "-o", str(made), str(_SOURCES / "peer.go")], check=True, env=environ, timeout=_BUILD_LIMIT
        )
    return [str(made)]


STACKS: dict[str, Callable[[Path], list[str]]] = {
    "openssl": lambda _directory: _python("openssl"),
    "gnutls": _gnutls,
    "go": _go,
    "java": _java,
    "python": lambda _directory: _python("python"),
}


def start_peer(workloads: Workloads, stack: str, role: str, files: Files, ca: Path) -> StackPeer:
    """A peer of one library, ready for commands."""
    argv = [*STACKS[stack](workloads.directory), role, str(files.chain), str(files.key), str(ca)]
    return StackPeer(workloads.watch(Process(argv, environ=bare_environment())))
