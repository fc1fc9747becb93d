"""What real receivers read in the PROXY header of a real server proxy, and that the payload behind it is whole."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.plain_backends import Backend, connect, echo, receive_exactly
from tests.support.processes import Proxy
from tests.support.proxy_header_receivers import Receiver, haproxy, nginx
from tests.support.tls_peer import TlsPeer
from tests.support.workloads import CLIENT, Workloads

REQUEST = b"GET / HTTP/1.1\r\nHost: recorder\r\nConnection: close\r\n\r\n"
MODES = ["conn", "tls", "tls-full", "spiffe"]
SNI = "db.example"
Open = Callable[[Path], AbstractContextManager[Receiver]]
RECEIVERS: dict[str, Open] = {"haproxy": haproxy, "nginx": nginx}


def ask(workloads: Workloads, proxy: Proxy) -> tuple[str, dict[str, str]]:
    """The answer to a request through a proxy, and the addresses of the connection as its client knows them."""
    with connect(proxy.address) as sock:
        (here, port), (there, target_port) = sock.getsockname()[:2], sock.getpeername()[:2]
        answer = answer_on(workloads, sock)
    return answer, {"source": here, "source port": str(port), "target": there, "target port": str(target_port)}


def answer_on(workloads: Workloads, sock: socket.socket) -> str:
    peer = TlsPeer(sock, workloads.identity(CLIENT))
    peer.tls.set_tlsext_host_name(SNI.encode())
    peer.shake_hands()
    peer.send(REQUEST)
    head, _, body = peer.receive_all().decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200"), head
    return body


def tls_facts(mode: str) -> dict[str, str]:
    """What a receiver that can tell TLVs tells of them."""
    is_tls = mode != "conn"
    return {
        "sni": SNI if is_tls else "",
        "version": "TLS 1.3" if is_tls else "",
        "cn": "",  # an SVID of the test's agent has none
        "id": CLIENT if mode == "spiffe" else "",
    }


# Debian 12's nginx, as all before 1.23.2, takes no header above 107 bytes: a whole certificate is for HAProxy to read.
READINGS = [(name, mode) for name in RECEIVERS for mode in MODES if (name, mode) != ("nginx", "tls-full")]


@pytest.mark.parametrize("backend", ["tcp", "unix"])
@pytest.mark.parametrize(("name", "mode"), READINGS)
def test_a_receiver_reads_who_is_calling(workloads: Workloads, tmp_path: Path, name: str, backend: str, mode: str) -> None:
    receiver = workloads.enter(RECEIVERS[name](tmp_path))
    proxy = workloads.server(getattr(receiver, backend), f"--proxy-protocol-mode={mode}")
    answer, addresses = ask(workloads, proxy)
    recorder = dict(zip(receiver.facts, answer.replace("|-", "|").split("|"), strict=True))
    expected = addresses | tls_facts(mode)
    assert recorder == {fact: expected[fact] for fact in receiver.facts}


def test_addresses_of_ipv6_are_read_as_such(workloads: Workloads, tmp_path: Path) -> None:
    receiver = workloads.enter(haproxy(tmp_path))
    proxy = workloads.server(receiver.tcp, "--proxy-protocol", listen="[::1]:0")
    answer, addresses = ask(workloads, proxy)
    assert answer.split("|")[:4] == list(addresses.values())


def test_an_address_of_ipv4_on_a_socket_for_both_is_read_as_ipv4(workloads: Workloads, tmp_path: Path) -> None:
    receiver = workloads.enter(haproxy(tmp_path))
    proxy = workloads.server(receiver.tcp, "--proxy-protocol-mode=spiffe", listen="[::]:0")
    port = proxy.address[1]
    with connect(("127.0.0.1", port)) as sock:
        here = sock.getsockname()
        answer = answer_on(workloads, sock)
    assert answer.split("|")[:4] == ["127.0.0.1", str(here[1]), "127.0.0.1", str(port)]


class HeaderRecorder:
    """A backend that records the PROXY header and echoes the payload."""

    def __init__(self) -> None:
        self.headers: list[bytes] = []

    def serve(self, connection: socket.socket) -> None:
        head = receive_exactly(connection, 16)
        self.headers.append(head + receive_exactly(connection, *struct.unpack("!H", head[14:])))
        connection.sendall(b"hello")
        echo(connection)


@pytest.mark.parametrize("mode", MODES)
def test_behind_the_header_of_a_unix_listener_the_payload_is_whole(workloads: Workloads, tmp_path: Path, mode: str) -> None:
    """Not read by HAProxy: 2.6 resets every connection from a Unix socket, without TLVs too."""
    recorder, front = HeaderRecorder(), tmp_path / "front"
    target = workloads.enter(Backend(recorder.serve)).target
    proxy = workloads.server(target, f"--proxy-protocol-mode={mode}", listen=f"unix:{front}")
    proxy.wait_for("listening for connections")
    with connect(str(front)) as sock:
        peer = TlsPeer(sock, workloads.identity(CLIENT))
        peer.shake_hands()
        peer.send(b"payload")
        assert peer.receive_exactly(12) == b"hellopayload"
    (header,) = recorder.headers
    assert header[12:14] == b"\x21\x31"
    assert header[16:232] == b"@".ljust(108, b"\0") + str(front).encode().ljust(108, b"\0")[:108]
    assert (CLIENT.encode() in header[232:]) == (mode in ("spiffe", "tls-full")), "in the certificate or by itself"


def test_the_header_comes_before_a_byte_was_said_and_holds_the_whole_certificate(workloads: Workloads) -> None:
    recorder = HeaderRecorder()
    proxy = workloads.server(workloads.enter(Backend(recorder.serve)).target, "--proxy-protocol-mode=tls-full")
    with connect(proxy.address) as sock:
        peer = TlsPeer(sock, workloads.identity(CLIENT))
        peer.shake_hands()
        assert peer.receive_exactly(5) == b"hello"
        leaf = peer.tls.get_certificate()
    assert leaf is not None
    der = leaf.to_cryptography().public_bytes(Encoding.DER)
    assert struct.pack("!BH", 0x28, len(der)) + der in recorder.headers[0]


def test_a_backend_that_resets_at_once_costs_one_line(workloads: Workloads) -> None:
    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    proxy = workloads.server(workloads.enter(Backend(serve)).target, "--proxy-protocol-mode=tls")
    with connect(proxy.address) as sock:
        TlsPeer(sock, workloads.identity(CLIENT)).shake_hands()
        # Which step the reset meets is a matter of microseconds.
        proxy.wait_for("error on dial: .*reset|error writing proxy header: |closed pipe: .* end=reset-by-plain-side$")
