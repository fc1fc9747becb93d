"""A target with one address that never answers: the other one is used at once, everywhere."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.command_runner import run_tool
from tests.support.plain_backends import Backend, connect, echo, receive_exactly
from tests.support.processes import bare_environment
from tests.support.workloads import Workloads

PATIENT = "--connect-timeout=1h"  # a share of it is longer than every limit of these tests


@contextmanager
def silent(port: int = 0) -> Iterator[int]:
    """A port of 127.0.0.1 whose queue is full: the kernel drops what tries to connect."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture
def target(workloads: Workloads) -> str:
    """`localhost`, of which 127.0.0.1 never answers and ::1 does."""
    port = workloads.enter(silent())
    try:
        workloads.enter(Backend(echo, host="::1", port=port))
    except OSError:
        pytest.skip("no IPv6 on loopback")
    return f"localhost:{port}"


def test_a_dead_address_delays_neither_connections_nor_the_backend_check(workloads: Workloads, target: str) -> None:
    status = workloads.directory / "status"
    server = workloads.server(target, PATIENT, f"--status=unix:{status}")
    client = workloads.client(server.target, PATIENT)
    with connect(client.address) as plain:
        plain.sendall(b"ping")
        assert receive_exactly(plain, 4) == b"ping"
    assert run_tool(bare_environment(), "health", f"unix:{status}", "--timeout=30s").code == 0


def test_a_dead_address_of_a_server_delays_no_client(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    server = workloads.server(backend.target, listen="[::1]:0")
    port = server.address[1]
    workloads.enter(silent(port))
    client = workloads.client(f"localhost:{port}", PATIENT)
    with connect(client.address) as plain:
        plain.sendall(b"ping")
        assert receive_exactly(plain, 4) == b"ping"


def test_a_dead_address_of_a_status_port_delays_no_probe(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    with silent() as port:
        server = workloads.server(backend.target, f"--status=http://[::1]:{port}")
        server.wait_for("listening")
        assert run_tool(bare_environment(), "health", f"http://localhost:{port}", "--timeout=1h").code == 0
