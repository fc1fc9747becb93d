"""What others see on the wire: sockets, protocols, proxies, and what is counted of it."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support.installed_command import InstalledCommand, ask
from tests.support.plain_backends import Backend, connect, echo, receive_exactly
from tests.support.processes import eventually
from tests.support.tls_peer import TlsPeer, tls_connection
from tests.support.workloads import Workloads

KEEP_ALIVE = 15 * 100  # seconds, in the ticks of /proc


@pytest.fixture
def backend(installed_command: InstalledCommand) -> Backend:
    return installed_command.enter(Backend(echo))


@pytest.fixture
def workloads(tmp_path: Path) -> Iterator[Workloads]:
    """An agent and its workloads."""
    with closing(Workloads(tmp_path)) as workloads:
        yield workloads


def has_echo(peer: TlsPeer) -> bool:
    peer.send(b"more")
    return peer.receive_exactly(4) == b"more"


# -- sockets


def keep_alive_ticks(port: int, *, is_local: bool) -> list[int]:
    """What is left until the next probe of each established connection with this port at one of its ends."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = [row for row in rows if row[3] == "01" and int(row[1 if is_local else 2].rpartition(":")[2], 16) == port]
    return [int(row[5].partition(":")[2], 16) for row in established if row[5].startswith("02:")]


def test_both_sides_are_kept_alive_after_15_seconds(installed_command: InstalledCommand, backend: Backend) -> None:
    proxy = installed_command.server(backend.target)
    with tls_connection(proxy.address, installed_command.command_files.identity("client")) as peer:
        assert has_echo(peer)
        for port, is_local in ((proxy.address[1], True), (backend.port, False)):
            eventually(lambda p=port, q=is_local: bool(keep_alive_ticks(p, is_local=q)), "nothing but the probe is due")  # type: ignore[misc]
            (ticks,) = keep_alive_ticks(port, is_local=is_local)
            assert 0 < ticks <= KEEP_ALIVE


# -- TLS


def test_the_systems_authorities_are_those_of_the_environment(installed_command: InstalledCommand, backend: Backend) -> None:
    keystore = f"--keystore={installed_command.command_files.keystore('server')}"
    line = ("server", "--listen=127.0.0.1:0", f"--target={backend.target}", "--allow-cn=client", keystore)
    for name, value in (
        ("SSL_CERT_FILE", installed_command.command_files.ca),
        ("SSL_CERT_DIR", str(installed_command.command_files.directory)),
    ):
        proxy = installed_command.start(*line, **{name: value})
        with tls_connection(proxy.address, installed_command.command_files.identity("client")) as peer:
            assert has_echo(peer)


def test_protocols_of_a_client_are_passed_over(installed_command: InstalledCommand, backend: Backend) -> None:
    proxy = installed_command.server(backend.target)
    with connect(proxy.address) as sock:
        peer = TlsPeer(sock, installed_command.command_files.identity("client"))
        peer.tls.set_alpn_protos([b"h2", b"http/1.1"])
        peer.shake_hands()
        assert peer.tls.get_alpn_proto_negotiated() == b""
        assert has_echo(peer)


# -- the status port


def test_an_idle_scraper_holds_no_shutdown_up(installed_command: InstalledCommand, backend: Backend) -> None:
    path = installed_command.directory / "status"
    proxy = installed_command.server(backend.target, f"--status=unix:{path}")
    assert proxy.address
    with connect(str(path)) as scraper:
        scraper.sendall(b"GET /_metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert receive_exactly(scraper, 12) == b"HTTP/1.1 200"
        proxy.signal(signal.SIGTERM)
        assert proxy.exit_code() == 0, "long before its limit of five minutes"


def test_a_connection_that_is_cut_is_one_timeout_and_a_health_check_an_error(
    installed_command: InstalledCommand, backend: Backend
) -> None:
    path = str(installed_command.directory / "status")
    proxy = installed_command.server(backend.target, f"--status=unix:{path}", "--max-conn-lifetime=100ms")
    connect(proxy.address).close()
    with tls_connection(proxy.address, installed_command.command_files.identity("client")) as peer:
        assert has_echo(peer)
        with suppress(ConnectionResetError):
            peer.receive_all()

    def numbers() -> dict[str, int]:
        return {entry["metric"].partition(".")[2]: entry["value"] for entry in json.loads(ask(path, "/_metrics")[1])}

    eventually(lambda: numbers()["conn.lifetime.count"] == 2, "both are over")
    seen = numbers()
    assert [seen[name] for name in ("accept.total", "accept.success", "accept.error", "conn.timeout")] == [2, 1, 1, 1]


# -- outbound proxies


class Asked:
    """An outbound proxy that keeps what it was asked and answers nothing more."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self._answers = answers  # after so many bytes, these
        self.said = b""

    def serve(self, connection: socket.socket) -> None:
        for size, answer in self._answers:
            self.said += receive_exactly(connection, size)
            connection.sendall(answer)
        while b"\r\n\r\n" not in self.said and (data := connection.recv(4096)):
            self.said += data


def test_an_http_proxy_is_asked_for_the_name_as_it_is_written_and_told_who_asks(installed_command: InstalledCommand) -> None:
    asked = Asked()
    address = installed_command.enter(Backend(asked.serve)).target
    proxy = installed_command.client("Db.Example.ORG:5432", f"--proxy=http://user:secret@{address}")
    with connect(proxy.address):
        eventually(lambda: b"\r\n\r\n" in asked.said, "the proxy has been asked")
    lines = asked.said.decode().split("\r\n")
    assert lines[0] == "CONNECT Db.Example.ORG:5432 HTTP/1.1"
    assert "Host: Db.Example.ORG:5432" in lines
    assert "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in lines
    proxy.wait_for("error on dial: ")
    assert not proxy.matches("secret")


def test_a_socks_proxy_is_asked_for_the_name(installed_command: InstalledCommand) -> None:
    name = b"Db.Example.ORG"
    asked = Asked((3, b"\x05\x00"), (5 + len(name) + 2, b""))
    proxy = installed_command.client(
        "Db.Example.ORG:5432", f"--connect-proxy=socks5://{installed_command.enter(Backend(asked.serve)).target}"
    )
    with connect(proxy.address):
        eventually(lambda: asked.said.endswith((5432).to_bytes(2, "big")), "the proxy has been asked")
    assert asked.said == b"\x05\x01\x00" + b"\x05\x01\x00\x03" + bytes([len(name)]) + name + (5432).to_bytes(2, "big")


# -- SPIFFE


def test_a_client_that_names_no_server_does_not_start(workloads: Workloads) -> None:
    proxy = workloads.client("127.0.0.1:1", rules=())
    assert proxy.exit_code() == 1
    assert proxy.reason().startswith("error: no access rule for the server")
    assert workloads.client("127.0.0.1:1", rules=("--verify-any",)).address
