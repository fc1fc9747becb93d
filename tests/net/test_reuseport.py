"""New connections of a shared port go where a program of the group sends them; real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from tunnel.net.address import parse_address
from tunnel.net.listen import open_listener
from tunnel.net.reuseport import drop_new_connections, select_by_hash, select_socket

PLACES = [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("", "127.0.0.1"), ("", "::1"), ("0.0.0.0", "127.0.0.1")]
MANY = 40  # connections: all of them at one of three sockets by chance is no matter of this world


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def open_group(stack: ExitStack, host: str, size: int) -> list[socket.socket]:
    """Sockets that share a port, in the order in which they began to listen."""
    group = [stack.enter_context(closing(open_listener(parse_address(f"{host}:0")))).socket]
    port = group[0].getsockname()[1]
    while len(group) < size:
        group.append(stack.enter_context(closing(open_listener(parse_address(f"{host}:{port}")))).socket)
    return group


def accepted(sock: socket.socket) -> int:
    count = 0
    with suppress(BlockingIOError):
        while True:
            sock.accept()[0].close()
            count += 1
    return count


def distribute(group: list[socket.socket], peer: str) -> list[int]:
    """How many of MANY new connections each socket gets."""
    for _ in range(MANY):
        socket.create_connection((peer, group[0].getsockname()[1])).close()
    return [accepted(sock) for sock in group]


@pytest.mark.parametrize(("host", "peer"), PLACES)
def test_the_selected_socket_gets_every_new_connection(stack: ExitStack, host: str, peer: str) -> None:
    group = open_group(stack, host, 3)
    for number in range(3):
        select_socket(group[0], number)
        assert distribute(group, peer) == [MANY if place == number else 0 for place in range(3)]
    select_by_hash(group[1])
    shares = distribute(group, peer)
    assert sum(shares) == MANY
    assert sum(share > 0 for share in shares) > 1


def test_a_number_that_no_socket_has_leaves_the_choice_to_the_hash(stack: ExitStack) -> None:
    group = open_group(stack, "127.0.0.1", 2)
    select_socket(group[0], 2)
    assert all(distribute(group, "127.0.0.1"))


def test_the_last_socket_takes_the_number_of_one_that_closes(stack: ExitStack) -> None:
    first, second, third = open_group(stack, "127.0.0.1", 3)
    first.close()
    select_socket(second, 0)
    assert distribute([second, third], "127.0.0.1") == [0, MANY]


def drop(sock: socket.socket) -> None:
    try:
        drop_new_connections(sock)
    except PermissionError:
        pytest.skip("the kernel allows filters with CAP_NET_ADMIN only")


@pytest.mark.parametrize(("host", "peer"), PLACES)
def test_a_socket_that_drops_new_connections_keeps_those_that_it_has(stack: ExitStack, host: str, peer: str) -> None:
    ours, _ = open_group(stack, host, 2)
    select_socket(ours, 0)
    client = stack.enter_context(socket.create_connection((peer, ours.getsockname()[1])))
    drop(ours)
    late = stack.enter_context(socket.socket(client.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    late.connect_ex(client.getpeername()[:2])  # its SYN has been processed when the call returns: loopback
    server = stack.enter_context(ours.accept()[0])
    client.sendall(b"there")
    assert server.recv(5) == b"there"
    assert accepted(ours) == 0


def test_a_dropped_connection_reaches_the_other_socket_when_it_is_repeated(stack: ExitStack) -> None:
    ours, other = open_group(stack, "127.0.0.1", 2)
    select_socket(ours, 0)
    drop(ours)
    address = ours.getsockname()
    late = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    late.connect_ex(address)
    ours.close()
    late.setblocking(True)
    late.settimeout(60)
    late.sendall(b"waits for the handshake, which the kernel repeats after a second")
    assert accepted(other) == 1


def test_a_socket_without_a_group_has_no_program(stack: ExitStack) -> None:
    alone = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    with pytest.raises(OSError, match="Invalid argument"):
        select_socket(alone, 0)
