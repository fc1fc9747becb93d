"""The installed command with certificates on disk, as an operator of ghostunnel has them.

Knows how it is started and where its files are; must not know what is tested.
"""

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
    """The command line of the program as it is installed."""
    return tunnel_argv(*arguments)


def environment(**more: str) -> dict[str, str]:
    """Ours without what the program would read, and `more`."""
    return {name: value for name, value in os.environ.items() if name not in _VARIABLES} | more


def run(*arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command line that ends by itself."""
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
    """What is wrong with a line, which is told on standard error alone and before anything is logged."""
    done = run(*arguments, environ=environ)
    assert (done.returncode, done.stdout) == (1, ""), done
    begin, end = "tunnel: error: ", ", try --help\n"
    assert done.stderr.startswith(begin)
    assert done.stderr.endswith(end)
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix(begin).removesuffix(end)


def failed_start(*arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """Why a line that can be read leads to nothing: told in the log first, and then on standard error."""
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
    """Write them, good for a day by the clock on the wall."""
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
    """Whatever a test starts; all of it ends with the test."""

    def __init__(self, directory: Path, command_files: CommandFiles) -> None:
        self.directory = directory
        self.command_files = command_files
        self._things = ExitStack()

    def close(self) -> None:
        """End everything, the youngest first."""
        self._things.close()

    def enter(self, thing: AbstractContextManager[T]) -> T:
        """Let something live as long as this stand."""
        return self._things.enter_context(thing)

    def watch(self, process: Process) -> None:
        """End a process with this stand, and look at its log then."""
        self._things.callback(process.close)

    def server(self, target: str, *flags: str, listen: str = ANY, **how: Any) -> Proxy:
        """A server proxy that admits the client, just started."""
        return self.start(*self.server_line(target, *flags, listen=listen), **how)

    def client(self, target: str, *flags: str, listen: str = ANY, **how: Any) -> Proxy:
        """A client proxy, just started."""
        return self.start(*self._line("client", "client", listen, target), *flags, **how)

    def server_line(self, target: str, *flags: str, listen: str = ANY) -> tuple[str, ...]:
        """The arguments of a server that admits the client."""
        return (*self._line("server", "server", listen, target), "--allow-cn=client", *flags)

    def start(self, *arguments: str, before: Iterable[str] = (), cwd: Path | None = None, **environ: str) -> Proxy:
        """Any line, just started; `before` is a program that starts it."""
        proxy = Proxy([*before, *command(*arguments)], environ=environment(**environ), cwd=cwd)
        self.watch(proxy)
        return proxy

    def _line(self, mode: str, name: str, listen: str, target: str) -> tuple[str, ...]:
        keystore = f"--keystore={self.command_files.keystore(name)}"
        return (mode, keystore, f"--cacert={self.command_files.ca}", f"--listen={listen}", f"--target={target}")


class _Local(http.client.HTTPConnection):
    """HTTP over whatever `connect` takes."""

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
