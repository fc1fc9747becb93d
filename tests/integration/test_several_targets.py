"""Real proxies with several targets: one of them ends, and no client notices."""

from __future__ import annotations

import socket
from contextlib import closing

from tests.support.dns_server import dns_server
from tests.support.plain_backends import Backend, connect, echo, receive_exactly
from tests.support.several_targets import start_with_targets
from tests.support.workloads import Workloads

SERVICE = "_echo._tcp.example.org"


def exchange(address: tuple[str, int], count: int = 1) -> None:
    """Use new connections, each of which must work."""
    for _ in range(count):
        with connect(address) as plain:
            plain.sendall(b"ping")
            assert receive_exactly(plain, 4) == b"ping"


def test_a_backend_that_ends_is_not_noticed_by_clients(workloads: Workloads) -> None:
    ending, staying = Backend(echo), workloads.enter(Backend(echo))
    with ending:
        server = start_with_targets(workloads, "server", [ending.target, staying.target])
        client = workloads.client(server.target)
        exchange(client.address, 4)
        server.wait_for("listening")
        assert ending.accepted > 0
        assert staying.accepted > 0
    exchange(client.address, 6)
    server.wait_for(rf"target is unhealthy: {ending.target} ")
    with Backend(echo, port=ending.port):
        server.wait_for(rf"target is healthy again: {ending.target}$")
    exchange(client.address, 2)


def test_a_server_that_ends_is_not_noticed_by_programs(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    ending, staying = workloads.server(backend.target), workloads.server(backend.target)
    client = start_with_targets(workloads, "client", [ending.target, staying.target])
    exchange(client.address, 4)
    name = ending.target
    ending.stop()
    exchange(client.address, 6)
    client.wait_for(rf"target is unhealthy: {name} ")


def test_a_port_without_tls_among_the_servers_is_skipped(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    plain = workloads.enter(Backend(lambda connection: connection.close()))
    client = start_with_targets(workloads, "client", [plain.target, workloads.server(backend.target).target], interval=0)
    exchange(client.address, 4)
    client.wait_for(rf"target failed, trying another one: {plain.target}: ")


def test_a_silent_target_does_not_use_up_the_connect_timeout(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # accepts, and never answers
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        servers = [target, workloads.server(backend.target).target]
        client = start_with_targets(workloads, "client", servers, "--connect-timeout=10s", interval=0)
        exchange(client.address)
        client.wait_for(rf"target failed, trying another one: {target}: .*its part of the connect timeout")


def test_srv_records_name_the_targets_and_are_asked_for_again(workloads: Workloads) -> None:
    first, second = workloads.enter(Backend(echo)), workloads.enter(Backend(echo))
    with dns_server() as names:
        names.set_srv(SERVICE, f"1 1 {first.port} localhost.")
        server = start_with_targets(workloads, "server", [f"srv:{SERVICE}"], "--unsafe-target", dns_server=names.address)
        client = workloads.client(server.target)
        exchange(client.address, 2)
        assert first.accepted >= 2
        names.set_srv(SERVICE, f"1 1 {second.port} localhost.")
        while not second.accepted:
            exchange(client.address)
        names.is_failing = True
        exchange(client.address, 2)
        server.wait_for(r"name of a target cannot be resolved: using the last answer: srv:")
        exchange(client.address, 2)
