"""The challenge port answers probes, closes every other connection, and is free afterwards."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from tests.support.issued_certificates import NAME, material
from tests.support.plain_backends import free_port
from tunnel.acme import responder
from tunnel.acme.responder import open_responder
from tunnel.errors import IdentityError, IdentityFault
from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.context import Presented

LIMIT = 60.0  # seconds of every wait: generous, and never reached when things work
ANSWER = material()
BOTH_VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["tls12", "tls13"])


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a responder with an open challenge."""
    challenges, number = AcmeChallenges(), free_port()
    with challenges.present(NAME, Presented(ANSWER.chain, ANSWER.private_key)), open_responder(challenges, number):
        yield number


@contextmanager
def connected(port: int, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection((host, port), timeout=LIMIT) as sock:
        yield sock


def hello(version: int, *, name: str = NAME, offers: tuple[bytes, ...] = (b"acme-tls/1",)) -> SSL.Connection:
    made = SSL.Context(SSL.TLS_METHOD)
    made.set_max_proto_version(version)
    made.set_alpn_protos(list(offers))
    connection = SSL.Connection(made)
    connection.set_tlsext_host_name(name.encode())
    connection.set_connect_state()
    return connection


def first_flight(version: int, **fields: Any) -> bytes:
    connection = hello(version, **fields)
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(1 << 16)


def probe(sock: socket.socket, version: int, size: int = 1 << 16) -> Certificate:
    """What is shown to an authority that writes pieces of a size."""
    connection = hello(version)
    is_done = False
    while not is_done:
        with suppress(SSL.WantReadError):
            connection.do_handshake()
            is_done = True
        with suppress(SSL.WantReadError):
            flight = connection.bio_read(1 << 16)
            for at in range(0, len(flight), size):
                sock.sendall(flight[at : at + size])
        if not is_done:
            data = sock.recv(1 << 16)
            assert data, "closed in the handshake"
            connection.bio_write(data)
    assert connection.get_alpn_proto_negotiated() == b"acme-tls/1"
    shown = connection.get_peer_certificate()
    assert shown is not None
    return parse_certificate(shown.to_cryptography().public_bytes(Encoding.DER))


def is_hung_up(sock: socket.socket) -> bool:
    with suppress(ConnectionResetError):
        while sock.recv(1 << 16):
            pass
    return True


@BOTH_VERSIONS
@pytest.mark.parametrize("size", [1 << 16, 1])
def test_a_probe_gets_the_certificate_and_is_closed(port: int, version: int, size: int) -> None:
    with connected(port) as sock:
        assert probe(sock, version, size) == ANSWER.chain[0]
        assert is_hung_up(sock)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_a_probe_may_come_by_ipv6(port: int) -> None:
    with connected(port, "::1") as sock:
        assert probe(sock, SSL.TLS1_3_VERSION) == ANSWER.chain[0]


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("name", "offers"),
    [("other.example.test", (b"acme-tls/1",)), (NAME, (b"h2",)), (NAME, (b"h2", b"acme-tls/1"))],
)
def test_a_connection_that_is_not_a_probe_is_closed_without_an_alert(
    port: int, version: int, name: str, offers: tuple[bytes, ...]
) -> None:
    with connected(port) as sock:
        sock.sendall(first_flight(version, name=name, offers=offers))
        assert sock.recv(1 << 16) == b""


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\3\1\0\4\1\0\xff\xff"])
def test_noise_closes_the_connection(port: int, data: bytes) -> None:
    with connected(port) as sock:
        sock.sendall(data)
        assert is_hung_up(sock)


def test_an_authority_that_breaks_off_is_forgotten(port: int) -> None:
    with connected(port) as sock:
        sock.sendall(first_flight(SSL.TLS1_3_VERSION)[:-1])
    with connected(port) as sock:
        sock.sendall(first_flight(SSL.TLS1_3_VERSION) + b"\x17\3\3\0\1x")
        assert is_hung_up(sock)
    with connected(port) as sock:
        assert probe(sock, SSL.TLS1_3_VERSION) == ANSWER.chain[0]


def test_the_silent_make_room_in_the_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "_SECONDS", 0.2)
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connected(port))
        with connected(port) as sock:
            assert probe(sock, SSL.TLS1_3_VERSION) == ANSWER.chain[0]


def test_a_silent_visitor_does_not_keep_the_port() -> None:
    challenges, number = AcmeChallenges(), free_port()
    with open_responder(challenges, number):
        stack = ExitStack()
        for _ in range(20):
            stack.enter_context(connected(number))
    with stack, socket.create_server(("", number)):  # which can be listened on by the next at once
        pass
    assert not [one for one in threading.enumerate() if one.name == "acme-responder"]


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(IdentityError, match=f"cannot listen on port {number} .*: address already in use") as refused:
            open_responder(AcmeChallenges(), number).__enter__()
    assert refused.value.reason is IdentityFault.ACME


def test_an_unexpected_exception_is_logged_and_ends_one_connection(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_data: bytes) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(responder, "parse_client_hello", fail)
        with connected(port) as sock:
            assert sock.recv(1) == b""
    (record,) = caplog.records
    assert record.message.startswith("internal error: probe from 127.0.0.1:")
    assert record.exc_info is not None
    assert capfd.readouterr().err == "", "nothing is written to standard error"
    with connected(port) as sock:
        assert probe(sock, SSL.TLS1_3_VERSION)
