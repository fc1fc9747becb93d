"""Signals: when a proxy ends, what it finishes before, and which exit code it leaves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import Proxy
from tests.support.tls_peer import TlsPeer, tls_connection
from tests.support.workloads import CLIENT, Workloads

STOP = [signal.SIGTERM, signal.SIGINT]
RELOAD = {signal.SIGHUP: "hangup", signal.SIGUSR1: "user defined signal 1"}
DRAINING = "shutdown proxy, waiting for drain of"


@pytest.fixture
def backend(workloads: Workloads) -> Backend:
    return workloads.enter(Backend(echo))


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Workloads]:
    """Workloads without an agent."""
    with closing(Workloads(tmp_path, agent=False)) as workloads:
        yield workloads


def open_transfers(workloads: Workloads, proxy: Proxy, count: int, stack: ExitStack) -> list[TlsPeer]:
    """Connections through a server proxy that have carried something and are not done."""
    peers = [stack.enter_context(tls_connection(proxy.address, workloads.identity(CLIENT))) for _ in range(count)]
    for peer in peers:
        assert has_echo(peer)
    return peers


def has_echo(peer: TlsPeer) -> bool:
    peer.send(b"more")
    return peer.receive_exactly(4) == b"more"


@pytest.mark.parametrize("number", STOP)
@pytest.mark.parametrize("mode", ["server", "client"])
def test_an_idle_proxy_ends_with_exit_0(workloads: Workloads, backend: Backend, mode: str, number: signal.Signals) -> None:
    proxy = workloads.server(backend.target) if mode == "server" else workloads.client(backend.target)
    assert proxy.address
    proxy.signal(number)
    assert proxy.exit_code() == 0
    assert proxy.matches(f"received {'terminated' if number == signal.SIGTERM else 'interrupt'}, shutting down")
    assert not proxy.complaints


@pytest.mark.parametrize("number", STOP)
def test_open_transfers_finish_and_nobody_new_is_accepted(
    workloads: Workloads, backend: Backend, number: signal.Signals
) -> None:
    proxy = workloads.server(backend.target)
    with ExitStack() as stack:
        peers = open_transfers(workloads, proxy, 5, stack)
        proxy.signal(number)
        proxy.wait_for(f"{DRAINING} 5 connections")
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.address)
        for peer in peers:
            assert has_echo(peer)
            peer.end()
            assert peer.receive_all() == b""
            assert peer.has_ended
        assert proxy.exit_code() == 0
    assert proxy.matches(r"stopped accepted=5 relayed=5 close_notify=5$")


def test_a_handshake_under_way_is_given_up_at_the_drain(workloads: Workloads, backend: Backend) -> None:
    proxy = workloads.server(backend.target)
    with connect(proxy.address) as silent, ExitStack() as stack:
        open_transfers(workloads, proxy, 1, stack)  # accepted in order: the silent one is in its handshake now
        proxy.signal(signal.SIGTERM)
        proxy.wait_for(f"{DRAINING} 1 connections")
        assert silent.recv(1) == b""


def test_the_shutdown_timeout_cuts_what_is_open_and_exits_1(workloads: Workloads, backend: Backend) -> None:
    proxy = workloads.server(backend.target, "--shutdown-timeout=100ms")
    with ExitStack() as stack:
        peers = open_transfers(workloads, proxy, 2, stack)
        proxy.signal(signal.SIGTERM)
        assert proxy.exit_code() == 1
        for peer in peers:
            with pytest.raises(ConnectionResetError):
                peer.receive()
    assert proxy.matches("graceful shutdown timeout: forcing exit connections=2")


@pytest.mark.parametrize("number", STOP)
def test_a_second_signal_ends_the_process_at_once(workloads: Workloads, backend: Backend, number: signal.Signals) -> None:
    proxy = workloads.server(backend.target)
    with ExitStack() as stack:
        (peer,) = open_transfers(workloads, proxy, 1, stack)
        proxy.signal(signal.SIGTERM)
        proxy.wait_for(DRAINING)
        proxy.signal(number)
        assert proxy.exit_code() == -number
        with suppress(ConnectionResetError):
            assert peer.receive() == b"", "the process that served it has ended too"
        assert not peer.has_ended


@pytest.mark.parametrize("number", RELOAD)
def test_a_reload_signal_before_the_first_identity_does_no_harm(lonely: Workloads, number: signal.Signals) -> None:
    proxy = lonely.server("127.0.0.1:1")
    proxy.wait_for("using target address")
    proxy.signal(number)
    proxy.wait_for(f"received {RELOAD[number]}, reloading")
    lonely.api.start()
    assert proxy.address
    assert proxy.stop() == 0


@pytest.mark.parametrize("number", RELOAD)
def test_a_reload_signal_while_serving_does_no_harm(workloads: Workloads, backend: Backend, number: signal.Signals) -> None:
    proxy = workloads.server(backend.target)
    with ExitStack() as stack:
        (peer,) = open_transfers(workloads, proxy, 1, stack)
        proxy.signal(number)
        proxy.wait_for(f"received {RELOAD[number]}, reloading")
        assert has_echo(peer)
        open_transfers(workloads, proxy, 1, stack)
    assert proxy.stop() == 0


@pytest.mark.parametrize("number", RELOAD)
def test_a_reload_signal_in_the_drain_does_no_harm(workloads: Workloads, backend: Backend, number: signal.Signals) -> None:
    proxy = workloads.server(backend.target)
    with ExitStack() as stack:
        (peer,) = open_transfers(workloads, proxy, 1, stack)
        proxy.signal(signal.SIGTERM)
        proxy.wait_for(DRAINING)
        proxy.signal(number)
        proxy.wait_for(f"received {RELOAD[number]}, ignored")
        assert has_echo(peer)
        peer.end()
        assert proxy.exit_code() == 0


def test_a_unix_listener_takes_its_file_away_when_the_drain_begins(workloads: Workloads, backend: Backend) -> None:
    path = workloads.directory / "listen"
    server = workloads.server(backend.target)
    proxy = workloads.client(server.target, listen=f"unix:{path}")
    proxy.wait_for(f"listening for connections on unix:{path}")
    with connect(str(path)) as plain:
        plain.sendall(b"more")
        assert plain.recv(4) == b"more"
        proxy.signal(signal.SIGTERM)
        proxy.wait_for(DRAINING)
        assert not path.exists()
        plain.sendall(b"last")
        assert plain.recv(4) == b"last"
    assert proxy.exit_code() == 0


@pytest.mark.parametrize("number", STOP)
def test_a_proxy_that_waits_for_its_first_identity_ends_with_exit_0(lonely: Workloads, number: signal.Signals) -> None:
    proxy = lonely.server("127.0.0.1:1")
    proxy.wait_for("Workload API unavailable")
    proxy.signal(number)
    assert proxy.exit_code() == 0
