"""The installed command with certificates in files, as operators of ghostunnel use it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.cert_factory import MadeCertificate, authority, make_certificate
from tests.support.plain_backends import connect
from tests.support.processes import LIMIT, Process, Proxy, tunnel_argv
from tests.support.workloads import Identity

ANY = "127.0.0.1:0"
_VARIABLES = ("SPIFFE_ENDPOINT_SOCKET", "KEYSTORE_PATH", "KEYSTORE_PASS", "CERT_PATH", "KEY_PATH", "CACERT_PATH")

T = TypeVar("T")


def command(*arguments: str) -> list[str]:
    """The command line of the installed program."""
    return tunnel_argv(*arguments)


def environment(**more: str) -> dict[str, str]:
    """Our environment without variables that the program reads, plus `more`."""
    return {name: value for name, value in os.environ.items() if name not in _VARIABLES} | more


def run(*arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line that ends by itself."""
    return subprocess.run(
        command(*arguments),
        env=environment(**(environ or {})),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def refusal(*arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """The error of a command line, on standard error only, before anything is logged."""
    done = run(*arguments, environ=environ)
    assert (done.returncode, done.stdout) == (1, ""), done
    begin, end = "tunnel: error: ", ", try --help\n"
    assert done.stderr.startswith(begin)
    assert done.stderr.endswith(end)
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix(begin).removesuffix(end)


def failed_start(*arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """The error of a valid command line that cannot start: in the log, then on standard error."""
    done = run(*arguments, environ=environ)
    assert done.returncode == 1, done
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout.endswith(f"] {done.stderr}") or done.stdout.endswith(f" {done.stderr}")
    return done.stderr.removeprefix("error: ").removesuffix("\n")


@dataclass(frozen=True)
class CommandFiles:
    """Files of one authority and two leaves of its own; the common names are `server` and `client`."""

    directory: Path

    @property
    def ca(self) -> str:
        return str(self.directory / "ca.pem")

    def identity(self, name: str) -> Identity:
        """Certificate and key apart."""
        return Identity(self.directory / f"{name}.crt", self.directory / f"{name}.key")

    def keystore(self, name: str) -> str:
        """Both in one file."""
        return str(self.directory / f"{name}.pem")


def make_command_files(directory: Path) -> CommandFiles:
    """Write them, valid for a day by the wall clock."""
    now = datetime.now(UTC)
    dates = {"start": now - timedelta(hours=1), "end": now + timedelta(days=1)}
    root = authority("a.test", **dates)
    (directory / "ca.pem").write_bytes(_pem(root))
    for name in ("server", "client"):
        leaf = make_certificate(subject=name, issuer=root, dns_names=("localhost",), usage=("digital_signature",), **dates)
        chain = _pem(leaf)
        key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for ending, data in (("crt", chain), ("key", key), ("pem", chain + key)):
            (directory / f"{name}.{ending}").write_bytes(data)
    return CommandFiles(directory)


def _pem(made: MadeCertificate) -> bytes:
    return made.certificate.pem


class InstalledCommand:
    """The processes of a test; they end with the test."""

    def __init__(self, directory: Path, command_files: CommandFiles) -> None:
        self.directory = directory
        self.command_files = command_files
        self._things = ExitStack()

    def close(self) -> None:
        """End all processes, the newest first."""
        self._things.close()

    def enter(self, thing: AbstractContextManager[T]) -> T:
        """Enter a context until the end of the test."""
        return self._things.enter_context(thing)

    def watch(self, process: Process) -> None:
        """End a process with the test, and check its log."""
        self._things.callback(process.close)

    def server(self, target: str, *flags: str, listen: str = ANY, **how: Any) -> Proxy:
        """Start a server proxy that admits the client."""
        return self.start(*self.server_line(target, *flags, listen=listen), **how)

    def client(self, target: str, *flags: str, listen: str = ANY, **how: Any) -> Proxy:
        """Start a client proxy."""
        return self.start(*self._line("client", "client", listen, target), *flags, **how)

    def server_line(self, target: str, *flags: str, listen: str = ANY) -> tuple[str, ...]:
        """The arguments of a server that admits the client."""
        return (*self._line("server", "server", listen, target), "--allow-cn=client", *flags)

    def start(self, *arguments: str, before: Iterable[str] = (), cwd: Path | None = None, **environ: str) -> Proxy:
        """Start any command line; `before` is a program that runs it."""
        proxy = Proxy([*before, *command(*arguments)], environ=environment(**environ), cwd=cwd)
        self.watch(proxy)
        return proxy

    def _line(self, mode: str, name: str, listen: str, target: str) -> tuple[str, ...]:
        keystore = f"--keystore={self.command_files.keystore(name)}"
        return (mode, keystore, f"--cacert={self.command_files.ca}", f"--listen={listen}", f"--target={target}")


class _Local(http.client.HTTPConnection):
    """HTTP over any address of `connect`."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        super().__init__("localhost", timeout=LIMIT)
        self._address = address

    def connect(self) -> None:
        self.sock: socket.socket = connect(self._address)


def ask(address: tuple[str, int] | str, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Status and body of one answer to plain HTTP."""
    connection = _Local(address)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def status_of(address: tuple[str, int] | str) -> dict[str, Any]:
    """The document of /_status."""
    document: dict[str, Any] = json.loads(ask(address, "/_status")[1])
    return document
