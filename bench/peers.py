"""The compared proxies, each in the same role.

The role: mutual TLS 1.3 in front of a plain backend on loopback, one worker thread, no resumption, at least one line per
connection in a log file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

from bench.generator import Generator
from bench.identity import CLIENT_ID, Identity
from bench.processes import NOTHING, BenchError, read_usage, running

START_SECONDS = 20.0
CHECKOUT = Path(__file__).resolve().parent.parent


class Peer(Protocol):
    """A proxy that can be started."""

    @property
    def name(self) -> str:
        """Its name in the table."""

    @property
    def adds_to(self) -> str:
        """The peer from which it differs only in the cost of a new connection, so that only this is measured; or ""."""

    def versions(self) -> tuple[str, str]:
        """Return the versions of the proxy and of its OpenSSL; raises BenchError if it is not installed."""

    def command(self, directory: Path, identity: Identity, *, port: int, backend: int) -> list[str]:
        """Return the command line; writes a configuration to `directory` first if it needs one."""


class HAProxy:
    """Debian's HAProxy, one thread."""

    name = "haproxy"
    adds_to = ""

    def versions(self) -> tuple[str, str]:
        if not shutil.which("haproxy"):
            raise BenchError("no haproxy in the PATH; on Debian: apt-get install haproxy")
        said = subprocess.run(["haproxy", "-vv"], capture_output=True, text=True, check=True).stdout
        own = re.search(r"HAProxy version (\S+)", said)
        library = re.search(r"Running on OpenSSL version : (OpenSSL \S+)", said)
        return own[1] if own else "unknown", library[1] if library else "unknown"

    def command(self, directory: Path, identity: Identity, *, port: int, backend: int) -> list[str]:
        pair = directory / "haproxy.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(identity.server_chain.read_bytes() + identity.server_key.read_bytes())
        configuration = directory / "haproxy.cfg"
        configuration.write_text(_HAPROXY.format(pair=pair, authorities=identity.authorities, port=port, backend=backend))
        return ["haproxy", "-db", "-f", str(configuration)]


_HAPROXY = """\
global
    nbthread 1
    maxconn 8000
    tune.ssl.cachesize 0
    log stdout format raw local0 info

defaults
    mode tcp
    log global
    option tcplog
    timeout connect 5s
    timeout client 10m
    timeout server 10m

frontend tls
    bind 127.0.0.1:{port} ssl crt {pair} ca-file {authorities} verify required ssl-min-ver TLSv1.3 no-tls-tickets
    default_backend plain

backend plain
    server one 127.0.0.1:{backend}
"""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """This checkout, or another one, run by the interpreter that runs this program."""

    name: str
    adds_to: str = ""
    is_on_disk: bool = False  # credentials from files, otherwise from the Workload API
    flags: tuple[str, ...] = ()
    checkout: Path = CHECKOUT

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
        own, library = outcome.stdout.splitlines()
        return own, " ".join(library.split()[:2])

    def command(self, directory: Path, identity: Identity, *, port: int, backend: int) -> list[str]:
        listen = ["--listen", f"127.0.0.1:{port}", "--target", f"127.0.0.1:{backend}"]
        flags = [self._fill_in(flag) for flag in self.flags]
        return [sys.executable, "-m", "tunnel", "server", *listen, *self._trust(identity), *flags]

    def _fill_in(self, flag: str) -> str:
        collector = start_collector() if "{collector}" in flag else 0
        return flag.format(free_port=free_port(), other_port=free_port(), collector=collector)

    def has_tools(self) -> bool:
        """Whether `tunnel exec` is measured with it: it exists, and no other peer has the same one."""
        return not self.is_on_disk and not self.flags and any(self.checkout.glob("tunnel/commands/exec*"))

    def tool(self, identity: Identity) -> list[str]:
        """Return a command that ends at once, with an unused tunnel."""
        source = ["--use-workload-api-addr", identity.workload_api, "--verify-id", CLIENT_ID]
        return [sys.executable, "-m", "tunnel", "exec", "--target", "127.0.0.1:1", *source, "--", "true"]

    def _trust(self, identity: Identity) -> list[str]:
        if not self.is_on_disk:
            return ["--use-workload-api-addr", identity.workload_api, "--allow-id", CLIENT_ID]
        pair = ["--cert", str(identity.server_chain), "--key", str(identity.server_key)]
        return [*pair, "--cacert", str(identity.authorities), "--allow-uri", CLIENT_ID]


_OBSERVED = (  # everything that shows an operator who talks to whom, in its default amount
    *("--status", "http://127.0.0.1:{free_port}", "--ui", "--health", "http://127.0.0.1:{other_port}"),
    *("--access-log", "json", "--traces", "http://127.0.0.1:{collector}/v1/traces"),
)
_PEERS: tuple[Peer, ...] = (
    HAProxy(),
    Tunnel("tunnel"),
    Tunnel("disk", is_on_disk=True),
    Tunnel("status", "disk", is_on_disk=True, flags=("--status", "http://127.0.0.1:{free_port}")),  # the metrics' timers run
    Tunnel("header", "disk", is_on_disk=True, flags=("--proxy-protocol",)),
    Tunnel("unobserved", flags=("--quiet", "all")),
    Tunnel("observed", flags=_OBSERVED),
)
PEERS: dict[str, Peer] = {peer.name: peer for peer in _PEERS}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running peer that has relayed a byte."""

    name: str
    pid: int
    core: int
    port: int
    log: Path
    start: tuple[float, float]  # seconds of CPU, user and system, until it listened
    has_log: bool = True  # about connections

    def log_lines(self) -> int:
        """Return the number of logged lines."""
        return self.log.read_bytes().count(b"\n")


@contextlib.contextmanager
def started(peer: Peer, generator: Generator, directory: Path, *, core: int, backend: int) -> Iterator[Proxy]:
    """Start a new process of `peer` on `core` and wait until it is ready."""
    port = free_port()
    log = directory / f"{peer.name}.log"
    command = peer.command(directory, generator.identity, port=port, backend=backend)
    checkout = peer.checkout if isinstance(peer, Tunnel) else CHECKOUT
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise each start would compile the modules
    with (
        log.open("wb") as output,
        running(command, core=core, stdout=output, stderr=output, environment=environment, directory=checkout) as process,
    ):
        await_ready(peer.name, process, port, log)
        start = read_usage(process.pid).since(NOTHING)
        with generator.client("handshakes", port, (1, 1)) as client:
            try:
                client.expect("READY")
            except BenchError as error:
                raise BenchError(f"{peer.name} does not relay a byte: {error}{_last_line(log)}") from error
        yield Proxy(peer.name, process.pid, core, port, log, start, has_log="--quiet" not in command)


def run_tool(peer: Tunnel, identity: Identity, core: int) -> tuple[float, float, float]:
    """Run `tunnel exec -- true`; return elapsed seconds, and user and system CPU seconds, those of the command included."""
    environment = {**os.environ, "PYTHONPATH": str(peer.checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.monotonic()
    process = subprocess.Popen(["taskset", "-c", str(core), *peer.tool(identity)], env=environment, cwd=peer.checkout)
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchError(f"tunnel exec -- true ended with {process.returncode}")
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
