"""Resolution of addresses: without a resolver where possible, else with errors of our own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunnel.net.address import TcpAddress
from tunnel.net.listen import bind_tcp
from tunnel.net.sockets import SocketAddress, format_address, use_no_pacing

ADDRESSES = [
    (socket.AF_INET6, ("::ffff:10.0.0.7", 443, 0, 0), "tcp:10.0.0.7:443"),
    (socket.AF_INET6, ("::ffff:0.0.0.0", 1, 0, 0), "tcp:0.0.0.0:1"),
    (socket.AF_INET6, ("2001:db8::ffff:7", 443, 0, 0), "tcp:[2001:db8::ffff:7]:443"),
    (socket.AF_INET6, ("::ffff:0:a00:7", 443, 0, 0), "tcp:[::ffff:0:a00:7]:443"),  # another prefix: RFC 2765
    (socket.AF_INET6, ("fe80::7%eth0", 443, 0, 2), "tcp:[fe80::7%eth0]:443"),
    (socket.AF_INET, ("10.0.0.7", 443), "tcp:10.0.0.7:443"),
]
ROOT = Path(__file__).parents[2]
EXHAUSTED = """
import resource, sys
from tunnel.errors import TargetError
from tunnel.net.address import TcpAddress
from tunnel.net.sockets import resolve

resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    resolve(TcpAddress("db.invalid", "80"))
except TargetError as error:
    print(error.reason.value)
"""


def test_resolution_without_a_free_descriptor_is_a_clear_error() -> None:
    """Neither the resolver nor the lazily loaded codec of host names can open a file."""
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "name-not-resolved\n"


@pytest.mark.parametrize(("family", "address", "text"), ADDRESSES)
def test_an_ipv4_mapped_address_is_written_as_ipv4(family: int, address: tuple[Any, ...], text: str) -> None:
    assert format_address(family, address) == text


def test_a_dual_stack_listener_names_an_ipv4_client_by_its_ipv4_address() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", 0))
        listener.listen()
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client:
            accepted, address = listener.accept()
            with accepted:
                assert format_address(accepted.family, address) == f"tcp:127.0.0.1:{client.getsockname()[1]}"


class FakeTcpSocket:
    """A socket of a kernel with this congestion control by default."""

    def __init__(self, default: bytes) -> None:
        self.congestion = default

    def getsockopt(self, _level: int, _name: int, size: int) -> bytes:
        return self.congestion.ljust(size, b"\0")

    def setsockopt(self, _level: int, _name: int, value: bytes) -> None:
        self.congestion = value


@pytest.mark.parametrize(
    ("address", "default", "used"),
    [
        ("127.0.0.1", b"bbr", b"reno"),
        ("::1", b"bbr2", b"reno"),
        ("127.0.0.1", b"cubic", b"cubic"),
        ("192.0.2.1", b"bbr", b"bbr"),
        ("::", b"bbr", b"bbr"),
        ("::1:2", b"bbr", b"bbr"),
    ],
)
def test_a_connection_over_loopback_is_not_paced(address: str, default: bytes, used: bytes) -> None:
    sock: Any = FakeTcpSocket(default)
    use_no_pacing(sock, SocketAddress(socket.AF_INET, (address, 1)))
    assert sock.congestion == used


def test_a_listener_on_loopback_passes_its_congestion_control_on() -> None:
    with bind_tcp(TcpAddress("127.0.0.1", "0")) as listener:
        listener.setblocking(True)
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            names = [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) for one in (listener, accepted)]
    assert names[0] == names[1]
    assert not names[0].startswith(b"bbr")


def test_a_unix_socket_and_an_old_kernel_keep_what_they_have() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        use_no_pacing(sock, SocketAddress(socket.AF_UNIX, "127.x"))
        use_no_pacing(sock, SocketAddress(socket.AF_INET, ("127.0.0.1", 1)))
