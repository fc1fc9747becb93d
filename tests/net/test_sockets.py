"""Resolution of addresses: without a resolver where possible, else with errors of our own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunnel.net.sockets import format_address

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
