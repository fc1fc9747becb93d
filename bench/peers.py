"""The compared proxies, each in the same role.

The role: mutual TLS 1.3 in front of a plain backend on loopback, one worker thread, no resumption, at least one line per
connection in a log file.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, Protocol

from bench.generator import Generator
from bench.identity import CLIENT_ID, Identity
from bench.other_peers import OTHER_PEERS
from bench.processes import NOTHING, BenchError, pin, read_usage, running

START_SECONDS = 120.0
CHECKOUT = Path(__file__).resolve().parent.parent


class Peer(Protocol):
    """A proxy that can be started."""

    @property
    def name(self) -> str:
        """Its name in the table."""

    @property
    def is_plain(self) -> bool:
        """Whether it is a TCP relay without TLS."""

    @property
    def has_log(self) -> bool:
        """Whether it logs connections to a file."""

    @property
    def adds_to(self) -> str:
        """The peer from which it differs only in the cost of a new connection, so that only this is measured; or ""."""

    def versions(self) -> tuple[str, str]:
        """Return the versions of the proxy and of its OpenSSL; raises BenchError if it is not installed."""

    def command(self, directory: Path, identity: Identity, *, port: int, backend: int) -> list[str]:
        """Return the command line; writes a configuration to `directory` first if it needs one."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """This checkout, or another one, run by the interpreter that runs this program."""

    name: str
    adds_to: str = ""
    is_on_disk: bool = False  # credentials from files, otherwise from the Workload API
    flags: tuple[str, ...] = ()
    checkout: Path = CHECKOUT
    workers: int = 0  # if the peer is there to measure scaling

    is_plain: ClassVar[bool] = False

    @property
    def has_log(self) -> bool:
        return "--quiet" not in self.flags

    def versions(self) -> tuple[str, str]:
        program = (
            "import platform, tunnel, cryptography; from cryptography.hazmat.backends.openssl.backend import backend;"
            "print(tunnel.__version__, 'on Python', platform.python_version(), 'with cryptography', cryptography.__version__);"
            "print(backend.openssl_version_text())"
        )
        command = [sys.executable, "-c", program]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.checkout)
        if outcome.returncode:
            raise BenchError(f"{self.name} does not run: {outcome.stderr.strip().splitlines()[-1]}")
        if self.workers > 1 and not self._has_workers():
            raise BenchError("this checkout has no --workers")
        own, library = outcome.stdout.splitlines()
        return own, " ".join(library.split()[:2])

    def command(self, directory: Path, identity: Identity, *, port: int, backend: int) -> list[str]:
        listen = ["--listen", f"127.0.0.1:{port}", "--target", f"127.0.0.1:{backend}"]
        flags = [self._fill_in(flag) for flag in self.flags]
        if self.workers > 1:
            flags += ["--workers", str(self.workers)]
        return [sys.executable, "-m", "tunnel", "server", *listen, *self._trust(identity), *flags]

    def _has_workers(self) -> bool:
        command = [sys.executable, "-m", "tunnel", "server", "--help"]
        return "--workers" in subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.checkout).stdout

    def _fill_in(self, flag: str) -> str:
        collector = start_collector() if "{collector}" in flag else 0
        return flag.format(free_port=free_port(), other_port=free_port(), collector=collector)

    def has_tools(self) -> bool:
        """Whether `tunnel exec` is measured with it: it exists, and no other peer has the same one."""
        return not (self.is_on_disk or self.flags or self.workers) and any(self.checkout.glob("tunnel/commands/exec*"))

    def tool(self, identity: Identity) -> list[str]:
        """Return a command that ends at once, with an unused tunnel."""
        source = ["--use-workload-api-addr", identity.workload_api, "--verify-id", CLIENT_ID]
        return [sys.executable, "-m", "tunnel", "exec", "--target", "127.0.0.1:1", *source, "--", "true"]

    def wrong_flag(self) -> list[str]:
        """Return a command that ends with an error about its command line."""
        return [sys.executable, "-m", "tunnel", "server", "--no-such-flag"]

    def _trust(self, identity: Identity) -> list[str]:
        if not self.is_on_disk:
            return ["--use-workload-api-addr", identity.workload_api, "--allow-id", CLIENT_ID]
        pair = ["--cert", str(identity.server_chain), "--key", str(identity.server_key)]
        return [*pair, "--cacert", str(identity.authorities), "--allow-uri", CLIENT_ID]


_OBSERVED = (  # everything that shows an operator who talks to whom, in its default amount
    *("--status", "http://127.0.0.1:{free_port}", "--ui", "--health", "http://127.0.0.1:{other_port}"),
    *("--access-log", "json", "--traces", "http://127.0.0.1:{collector}/v1/traces"),
)
_TUNNELS = (
    Tunnel("tunnel"),
    Tunnel("disk", is_on_disk=True),
    Tunnel("status", "disk", is_on_disk=True, flags=("--status", "http://127.0.0.1:{free_port}")),  # the metrics' timers run
    Tunnel("header", "disk", is_on_disk=True, flags=("--proxy-protocol",)),
    Tunnel("unobserved", flags=("--quiet", "all")),
    Tunnel("observed", flags=_OBSERVED),
    Tunnel("workers1", workers=1),
    Tunnel("workers2", workers=2),
)
PEERS: dict[str, Peer] = {peer.name: peer for peer in (*OTHER_PEERS, *_TUNNELS)}
DEFAULT_PEERS = ("haproxy", "nginx", "hitch", "stunnel", "ghostunnel", "tcp", "tunnel")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running peer that has relayed a byte."""

    name: str
    pid: int
    cores: tuple[int, ...]
    port: int
    log: Path
    start: tuple[float, float]  # seconds of CPU, user and system, until it listened
    has_log: bool  # about connections
    is_plain: bool

    def log_lines(self) -> int:
        """Return the number of logged lines."""
        return self.log.read_bytes().count(b"\n")


@contextlib.contextmanager
def started(peer: Peer, generator: Generator, directory: Path, *, cores: Sequence[int], backend: int) -> Iterator[Proxy]:
    """Start a new process of `peer` on these cores and wait until it is ready."""
    port = free_port()
    log = directory / f"{peer.name}.log"
    command = peer.command(directory, generator.identity, port=port, backend=backend)
    checkout = peer.checkout if isinstance(peer, Tunnel) else CHECKOUT
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise each start would compile the modules
    with (
        log.open("wb") as output,
        running(command, cores=cores, stdout=output, stderr=output, environment=environment, directory=checkout) as process,
    ):
        await_ready(peer.name, process, port, log)
        start = read_usage(process.pid).since(NOTHING)
        pin(process.pid, cores)
        with generator.client("handshakes", port, (1, 1), is_plain=peer.is_plain) as client:
            try:
                client.expect("READY")
            except BenchError as error:
                raise BenchError(f"{peer.name} does not relay a byte: {error}{_last_line(log)}") from error
        yield Proxy(peer.name, process.pid, tuple(cores), port, log, start, peer.has_log, peer.is_plain)


def run_tool(peer: Tunnel, command: Sequence[str], core: int, *, status: int = 0) -> tuple[float, float, float]:
    """Run a command of a checkout; return elapsed seconds, and user and system CPU seconds, those of its children included."""
    environment = {**os.environ, "PYTHONPATH": str(peer.checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.monotonic()
    with open(os.devnull, "wb") as nothing:
        argv = ["taskset", "-c", str(core), *command]
        process = subprocess.Popen(argv, env=environment, cwd=peer.checkout, stderr=nothing if status else None)
    _pid, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode != status:
        raise BenchError(f"{' '.join(command[2:4])} ended with {process.returncode}")
    return time.monotonic() - began, usage.ru_utime, usage.ru_stime


class _Collector(BaseHTTPRequestHandler):
    """Accepts traces."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Print nothing."""


@cache
def start_collector() -> int:
    """Start a collector of traces that ends with this process; return its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_ready(name: str, process: subprocess.Popen[bytes], port: int, log: Path, seconds: float = START_SECONDS) -> None:
    """Wait until the port accepts a connection; raises BenchError with the last line of the log."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"{name} ended with status {process.returncode}{_last_line(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.05)
    raise BenchError(f"{name} did not listen within {seconds:.0f} s{_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"; its log ends: {lines[-1]}" if lines else ""
