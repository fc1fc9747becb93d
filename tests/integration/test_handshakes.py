"""Handshakes while the identities of both sides change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.support.plain_backends import Backend, connect, echo, receive_exactly
from tests.support.processes import Proxy
from tests.support.workloads import Workloads

ROTATIONS = 100
HANDSHAKES = 1000


def call(proxy: Proxy, count: int) -> int:
    """How many of `count` connections through a client proxy carried something there and back."""
    good = 0
    for _ in range(count):
        with connect(proxy.address) as plain:
            plain.sendall(b"hello")
            good += receive_exactly(plain, 5) == b"hello"
    return good


def test_no_handshake_fails_over_a_hundred_rotations(workloads: Workloads) -> None:
    server = workloads.server(workloads.enter(Backend(echo)).target)
    client = workloads.client(server.target)
    assert client.address
    with ThreadPoolExecutor() as threads:
        for number in range(ROTATIONS):
            calls = [threads.submit(call, client, HANDSHAKES // ROTATIONS // 2) for _ in range(2)]
            workloads.api.rotate_svids()
            for proxy in (server, client):
                proxy.wait_for(f" generation={number + 2} ")
            assert sum(done.result() for done in calls) == HANDSHAKES // ROTATIONS
    client.stop()
    assert client.lines[-1].endswith(f"stopped accepted={HANDSHAKES} relayed={HANDSHAKES} close_notify={HANDSHAKES}")
    server.stop()
    assert server.lines[-1].endswith(f"stopped accepted={HANDSHAKES} relayed={HANDSHAKES} close_notify={HANDSHAKES}")
