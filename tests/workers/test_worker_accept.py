"""How many connections a worker accepts in one turn of its event loop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.tunnel_harness import TunnelHarness, generation
from tunnel.relay.loop import IN
from tunnel.workers.messages import Configure
from tunnel.workers.worker_tunnel import _BUSY_ACCEPTS, WorkerTunnel

WAITING = 20

Tunnels = Callable[..., WorkerTunnel]
Busy = Callable[[WorkerTunnel], None]


@pytest.fixture
def tunnels(tmp_path: Path) -> Iterator[Tunnels]:
    """Creates a tunnel in a worker, for which connections wait. Without an identity, it closes at once what it accepts."""
    with ExitStack() as things:
        yield lambda **fields: things.enter_context(_tunnel_with_waiting(tmp_path, fields))


@pytest.fixture
def tunnel(tunnels: Tunnels) -> WorkerTunnel:
    return tunnels()


@pytest.fixture
def busy() -> Iterator[Busy]:
    """Makes each turn of a tunnel's loop have further events."""
    with ExitStack() as things:

        def add_events(tunnel: WorkerTunnel) -> None:
            for sock in map(things.enter_context, socket.socketpair()):
                sock.send(b"never read")
                tunnel.loop.watch_listener(sock, lambda _events: None, tunnel)

        yield add_events


@contextmanager
def _tunnel_with_waiting(place: Path, fields: dict[str, Any]) -> Iterator[WorkerTunnel]:
    harness = TunnelHarness(place, **fields)
    unused = cast("Any", SimpleNamespace(write_end=lambda _record: None, channel=SimpleNamespace(send=None)))
    message = Configure(1, harness.tunnel.config, accepts=True)
    tunnel = WorkerTunnel(harness.shared, message, lambda _address, _answer: None, unused, unused)
    path = str(place / "listener")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.setblocking(False)
        listening.bind(path)
        listening.listen(WAITING)
        tunnel.serve(listening, f"unix:{path}")
        clients = [socket.socket(socket.AF_UNIX) for _ in range(WAITING)]
        for client in clients:
            client.connect(path)
        yield tunnel
        tunnel.drain()
        tunnel.abort()
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


@pytest.mark.parametrize("limit", [3, _BUSY_ACCEPTS + 3])
@pytest.mark.parametrize("kind", ["max_concurrent_conns", "max_rate"])
def test_a_busy_worker_accepts_no_more_than_its_limit(tunnels: Tunnels, busy: Busy, kind: str, limit: int) -> None:
    """Neither in one turn nor in several at one moment of the clock."""
    tunnel = tunnels(**{kind: limit})
    tunnel.swap(generation(lasts=1e9))  # in a worker, the wall clock goes on
    busy(tunnel)
    tunnel.loop.turn(0)
    assert len(tunnel.connections) == tunnel.counters.accepted == min(limit, _BUSY_ACCEPTS)
    for _ in range(WAITING):
        tunnel.loop.turn(0)
    assert len(tunnel.connections) == tunnel.counters.accepted == limit
