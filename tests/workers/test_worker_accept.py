"""How many connections a worker accepts in one turn of its event loop."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.tunnel_harness import TunnelHarness
from tunnel.relay.loop import IN
from tunnel.workers.messages import Configure
from tunnel.workers.worker_tunnel import _BUSY_ACCEPTS, WorkerTunnel

WAITING = 20


@pytest.fixture
def tunnel(tmp_path: Path) -> Iterator[WorkerTunnel]:
    """A tunnel in a worker, without an identity: what it accepts, it closes at once."""
    harness = TunnelHarness(tmp_path)
    unused = cast("Any", SimpleNamespace(write_end=lambda _record: None, channel=SimpleNamespace(send=None)))
    message = Configure(1, harness.tunnel.config, accepts=True)
    tunnel = WorkerTunnel(harness.shared, message, lambda _address, _answer: None, unused, unused)
    path = str(tmp_path / "listener")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.setblocking(False)
        listening.bind(path)
        listening.listen(WAITING)
        tunnel.serve(listening, f"unix:{path}")
        clients = [socket.socket(socket.AF_UNIX) for _ in range(WAITING)]
        for client in clients:
            client.connect(path)
        yield tunnel
        for client in clients:
            client.close()
    harness.close()


def test_an_idle_worker_accepts_one_connection(tunnel: WorkerTunnel) -> None:
    tunnel.loop.batch = None
    tunnel.accept(IN)
    assert tunnel.counters.accepted == 1


def test_a_busy_worker_accepts_some_that_no_idle_worker_has_taken(tunnel: WorkerTunnel) -> None:
    tunnel.loop.batch = [(0, IN), (1, IN)]
    tunnel.accept(IN)
    assert tunnel.counters.accepted == _BUSY_ACCEPTS < WAITING
    for _ in range(WAITING):
        tunnel.accept(IN)
    assert tunnel.counters.accepted == WAITING
