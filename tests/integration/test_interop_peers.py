"""Stock programs on the other side of a proxy with certificates on disk: bytes and ends pass both ways, in every combination.

Each way in is a client of ours that is no tunnel, each way out a server that is none.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.certificate_files import Files
from tests.support.file_identities import FileIdentities
from tests.support.openssl_command import s_client, s_server
from tests.support.plain_backends import Backend, connect, echo, receive_all, receive_exactly
from tests.support.processes import LIMIT, Proxy
from tests.support.requirements import program
from tests.support.stock_proxies import CLIENTS, SERVERS

KINDS = ["rsa", "p256", "ed25519"]
VERSIONS = ["1.2", "1.3"]
PAYLOAD = b"there and back" * 5000
CLOSED = r"\[forwarded 68.4 KiB, returned 68.4 KiB, .* end=closed$"  # and no other connection's line


class InteropPeers(FileIdentities):
    """A server proxy and client files for each type of key, and an echo backend."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.echo_path = directory / "echo"
        self.echo = self.enter(Backend(echo, path=self.echo_path))
        self.http = self.enter(Backend(answer_http))
        self._proxies: dict[tuple[str, str], Proxy] = {}
        self._files: dict[tuple[str, str], Files] = {}

    def files_of(self, role: str, kind: str) -> Files:
        if (role, kind) not in self._files:
            names = {"dns": ("localhost",), "ips": ("127.0.0.1",)} if role == "server" else {}
            self._files[role, kind] = self.pki.leaf(role, kind=kind, **names)
        return self._files[role, kind]

    def server_of(self, kind: str, target: str = "") -> Proxy:
        """The server proxy whose key is of a kind."""
        key = kind, target or self.echo.target
        if key not in self._proxies:
            self._proxies[key] = self.serve(key[1], files=self.files_of("server", kind), rules=("--allow-cn=client",))
        return self._proxies[key]


def answer_http(connection) -> None:
    """Answer one HTTP request."""
    while b"\r\n\r\n" not in connection.recv(65536):
        pass
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + PAYLOAD)


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteropPeers]:
    with closing(InteropPeers(tmp_path_factory.mktemp("peers"))) as peers:
        yield peers


def converse(where: tuple[str, int] | str, *, has_half_close: bool) -> None:
    """Exchange data in both directions, and data after a half-close."""
    with connect(where) as plain:
        plain.sendall(PAYLOAD)
        assert receive_exactly(plain, len(PAYLOAD)) == PAYLOAD
        plain.sendall(b"the last")
        if has_half_close:
            plain.shutdown(1)
            assert receive_all(plain) == b"the last"
        else:
            assert receive_exactly(plain, 8) == b"the last"


# -- stock clients, our server


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_stock_proxy_reaches_our_server(peers: InteropPeers, client: str, kind: str, version: str) -> None:
    proxy = peers.server_of(kind)
    since = len(proxy.lines)
    peer, where = CLIENTS[client](peers, proxy.target, peers.files_of("client", kind), peers.pki.cacert, version)
    converse(where, has_half_close=client != "stunnel")
    proxy.wait_for(r"closed pipe: tcp:\S+ \[CN=client\] .*" + CLOSED, since)
    peer.stop()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [*KINDS, "p384"])
def test_openssl_reaches_our_server(peers: InteropPeers, kind: str, version: str) -> None:
    proxy = peers.server_of(kind)
    since = len(proxy.lines)
    flags = f"-tls{version.replace('.', '_')}", "-CAfile", str(peers.pki.cacert), "-verify_return_error"
    client = s_client(peers, proxy.address, peers.files_of("client", kind), *flags, "-servername", "localhost")
    client.say("ping")
    client.wait_for("^ping$")
    client.say("Q")
    assert client.exit_code() == 0
    assert client.matches(rf"New, TLSv{version}, Cipher is") or client.matches(rf"Protocol *: TLSv{version}")
    assert client.matches("Verify return code: 0 ")
    proxy.wait_for(r"closed pipe: .* end=closed$", since)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_curl_reaches_our_server(peers: InteropPeers, kind: str, version: str) -> None:
    proxy = peers.server_of(kind, peers.http.target)
    files, maximum = peers.files_of("client", kind), ("--tlsv1.2", "--tls-max", version)
    argv = ["--cacert", str(peers.pki.cacert), "--cert", str(files.chain), "--key", str(files.key), *maximum]
    url = f"https://localhost:{proxy.address[1]}/"
    done = subprocess.run([program("curl"), "-4sS", *argv, url], capture_output=True, timeout=LIMIT)
    assert (done.stdout, done.stderr) == (PAYLOAD, b"")


# -- our client, stock servers


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("server", SERVERS)
def test_our_client_reaches_a_stock_proxy(peers: InteropPeers, server: str, kind: str, version: str) -> None:
    files, target = peers.files_of("server", kind), str(peers.echo_path)
    peer, where = SERVERS[server](peers, target, files, peers.pki.cacert, version)
    proxy = peers.call(where.replace("127.0.0.1", "localhost"), files=peers.files_of("client", kind))
    converse(proxy.address, has_half_close=server != "stunnel")
    proxy.wait_for(r"closed pipe: .* <-> tcp:\S+ \[CN=server\] .*" + CLOSED)
    assert proxy.stop() == 0
    peer.stop()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [*KINDS, "p384"])
def test_our_client_reaches_openssl(peers: InteropPeers, kind: str, version: str) -> None:
    flags = f"-tls{version.replace('.', '_')}", "-CAfile", str(peers.pki.cacert), "-verify_return_error"
    server, port = s_server(peers, peers.files_of("server", kind), *flags)
    proxy = peers.call(f"localhost:{port}", files=peers.files_of("client", kind))
    with connect(proxy.address) as plain:
        plain.sendall(b"ping\n")
        server.wait_for("^ping$")
        server.say("pong")
        assert receive_exactly(plain, 5) == b"pong\n"
        plain.shutdown(1)
        assert receive_all(plain) == b""  # openssl answers an end by its own
    proxy.wait_for("closed pipe: .* end=closed$")
    assert proxy.stop() == 0
