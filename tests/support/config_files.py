"""Configuration files of `tunnel serve`, and the process that serves one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from OpenSSL import SSL

from tests.support.plain_backends import connect, receive_all
from tests.support.processes import WORKERS, Process, bare_environment, tunnel_argv
from tests.support.run_line import has_echo
from tests.support.tls_peer import TlsPeer
from tests.support.workloads import CLIENT, SERVER, Workloads

DOCUMENT = """
[status]
listen = "unix:{place}/status"
enable-reload = true

[identity.default]
workload-api = "{api}"
"""


class ServedFile:
    """A configuration file with servers on Unix sockets, and `tunnel serve` with it."""

    def __init__(self, workloads: Workloads) -> None:
        self.workloads = workloads
        self.place = workloads.directory
        self.path = self.place / "tunnel.toml"
        self.status = self.place / "status"
        self.servers: dict[str, str] = {}  # the rest of the table by name
        self.head = f"workers = {WORKERS}\n" + DOCUMENT.format(place=self.place, api=workloads.sockets[SERVER])
        self.process: Process

    def add(self, name: str, target: str, *lines: str, access: str = f'[{{ allow = "{CLIENT}" }}]') -> None:
        """Add a server, or change one."""
        self.servers[name] = "\n".join((f'target = "{target}"', f"access = {access}", *lines))

    def write(self) -> None:
        tables = (
            f'\n[[server]]\nname = "{name}"\nlisten = "unix:{self.front(name)}"\n{rest}\n'
            for name, rest in self.servers.items()
        )
        new = self.path.with_suffix(".new")
        new.write_text(self.head + "".join(tables))
        new.rename(self.path)

    def front(self, name: str) -> Path:
        return self.place / f"front-{name}"

    def start(self, *flags: str) -> Process:
        self.write()
        argv = tunnel_argv("serve", f"--config={self.path}", *flags)
        self.process = self.workloads.watch(Process(argv, environ=bare_environment(), is_merged=True))
        self.process.wait_for("listening for connections on", count=len(self.servers))
        return self.process

    @contextmanager
    def connect(self, name: str, spiffe_id: str = CLIENT) -> Iterator[TlsPeer]:
        """A TLS connection to a server, after the handshake."""
        with connect(str(self.front(name))) as sock:
            peer = TlsPeer(sock, self.workloads.identity(spiffe_id))
            peer.shake_hands()
            yield peer

    def is_admitted(self, name: str, spiffe_id: str = CLIENT) -> bool:
        """Whether a new connection is relayed."""
        with self.connect(name, spiffe_id) as peer:
            try:
                return has_echo(peer)
            except (SSL.Error, ConnectionError, EOFError):
                return False

    def reload(self) -> tuple[int, str]:
        """Write the file, and POST /_reload; the status and the body."""
        self.write()
        return self.request_reload()

    def request_reload(self) -> tuple[int, str]:
        """POST /_reload; the status and the body."""
        with connect(str(self.status)) as sock:
            sock.sendall(b"POST /_reload HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
            head, _, body = receive_all(sock).partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()
