"""The user ID of the peer of a local connection; None once the peer has closed."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tunnel.net import owner
from tunnel.net.owner import owner_of_peer

OTHER = 64321  # a user with no name
# Connections of other processes may leave from the same port of 127.0.0.1, and then it cannot be bound again.
UNSHARED = "127.83.19.7"
# Becomes another user, connects, says so, and holds the connection until standard input ends.
CALLER = """
import os, socket, sys
user, family, host, port = sys.argv[1:]
os.setuid(int(user))
with socket.socket(int(family)) as sock:
    sock.connect((host, int(port)) if port else host.replace("@", chr(0)))
    print("connected", flush=True)
    sys.stdin.read()
"""
LOOPBACKS = [
    (socket.AF_INET, "127.0.0.1", socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET, "127.0.0.1", socket.AF_INET6, "::ffff:127.0.0.1"),
    (socket.AF_INET6, "::1", socket.AF_INET6, "::1"),
    (socket.AF_INET6, "::", socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET6, "::", socket.AF_INET6, "::ffff:127.0.0.2"),
    (socket.AF_INET6, "::", socket.AF_INET6, "::1"),
]


@pytest.fixture(params=["sock_diag", "tables"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two lookups; the kernel that runs the tests supports both."""
    assert owner.has_sock_diag()
    if request.param == "tables":
        monkeypatch.setattr(owner, "has_sock_diag", lambda: False)
    return str(request.param)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listening(stack: ExitStack, family: int, host: str) -> socket.socket:
    sock = stack.enter_context(socket.socket(family))
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, 0))
    sock.listen()
    return sock


def called(
    stack: ExitStack, listener: socket.socket, family: int, host: str, source: str | None = None
) -> tuple[socket.socket, socket.socket, object]:
    """A connection of this process, and its accepted side."""
    caller = stack.enter_context(socket.socket(family))
    if source is not None:
        caller.bind((source, 0))
    caller.connect((host, listener.getsockname()[1]))
    accepted, address = listener.accept()
    return caller, stack.enter_context(accepted), address


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("family", "host", "from_family", "to_host"), LOOPBACKS)
def test_a_local_peer_is_known_until_it_closes(
    stack: ExitStack, family: int, host: str, from_family: int, to_host: str
) -> None:
    caller, accepted, address = called(stack, listening(stack, family, host), from_family, to_host)
    assert owner_of_peer(accepted, address) == os.getuid()
    caller.shutdown(socket.SHUT_WR)
    assert owner_of_peer(accepted, address) == os.getuid()
    caller.close()  # now the kernel shows user 0, which we may be
    assert owner_of_peer(accepted, address) is None


@pytest.mark.usefixtures("way")
def test_a_peer_after_a_reset_is_unknown(stack: ExitStack) -> None:
    caller, accepted, address = called(stack, listening(stack, socket.AF_INET, "127.0.0.1"), socket.AF_INET, "127.0.0.1")
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset: no socket is left at all
    caller.close()
    assert owner_of_peer(accepted, address) is None


@pytest.mark.usefixtures("way")
def test_a_listener_on_the_peers_port_is_not_the_peer(stack: ExitStack) -> None:
    """A lookup of a closed connection must not find a listener on the same port."""
    listener = listening(stack, socket.AF_INET, "127.0.0.1")
    caller, accepted, address = called(stack, listener, socket.AF_INET, "127.0.0.1", UNSHARED)
    place = caller.getsockname()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    caller.close()
    other = stack.enter_context(socket.socket())
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.bind(place)
    other.listen()
    assert owner_of_peer(accepted, address) is None


@pytest.mark.usefixtures("way")
def test_a_later_connection_from_the_same_port_is_not_the_peer(stack: ExitStack) -> None:
    """Data that the closed connection has sent is still readable and must not be attributed to the new one of our user."""
    listener = listening(stack, socket.AF_INET, "127.0.0.1")
    dead, accepted, address = called(stack, listener, socket.AF_INET, "127.0.0.1", UNSHARED)
    place = dead.getsockname()
    dead.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    dead.close()
    living = stack.enter_context(socket.socket())
    living.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    living.bind(place)
    living.connect(listener.getsockname())
    second, second_address = listener.accept()
    stack.enter_context(second)
    assert (owner_of_peer(accepted, address), owner_of_peer(second, second_address)) == (None, os.getuid())


@pytest.mark.usefixtures("way")
def test_one_of_many_connections_is_found(stack: ExitStack) -> None:
    listener = listening(stack, socket.AF_INET, "127.0.0.1")
    pairs = [called(stack, listener, socket.AF_INET, "127.0.0.1") for _ in range(200)]
    assert {owner_of_peer(accepted, address) for _, accepted, address in pairs} == {os.getuid()}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start another user's process")
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("place", ["127.0.0.1", "::1", "unix"])
def test_a_peer_of_another_user_is_recognized(stack: ExitStack, place: str) -> None:
    if place == "unix":
        name = f"@tunnel-owner-{os.getpid()}"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(name.replace("@", "\0"))
        listener.listen()
        where = [name, ""]
    else:
        listener = listening(stack, socket.AF_INET6 if ":" in place else socket.AF_INET, place)
        where = [place, str(listener.getsockname()[1])]
    argv = [sys.executable, "-c", CALLER, str(OTHER), str(int(listener.family)), *where]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"connected\n"
        accepted, address = listener.accept()
        with closing(accepted):
            assert owner_of_peer(accepted, address) == OTHER
            process.communicate()
            assert owner_of_peer(accepted, address) == (OTHER if place == "unix" else None)


@pytest.mark.parametrize(
    ("rows", "blurred"),
    [
        ("         0          0 4294967295\n", None),
        ("0 100000 65536\n", 65534),
        ("0 1000 1\n1 100000 65535\n", 65534),
        ("", 65534),
        (None, 65534),  # there is no /proc
    ],
)
def test_the_overflow_user_is_unknown(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str | None, blurred: int | None
) -> None:
    if rows is not None:
        (tmp_path / "map").write_text(rows)
    monkeypatch.setattr(owner, "_UID_MAP", str(tmp_path / "map"))
    monkeypatch.setattr(owner, "query_sock_diag", lambda *_: 65534)
    owner.overflow_user.cache_clear()
    _, accepted, address = called(stack, listening(stack, socket.AF_INET, "127.0.0.1"), socket.AF_INET, "127.0.0.1")
    try:
        assert owner.overflow_user() == blurred
        assert owner_of_peer(accepted, address) == (None if blurred else 65534)
    finally:
        owner.overflow_user.cache_clear()


def test_a_unix_peer_has_the_user_of_its_connect(stack: ExitStack) -> None:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    theirs.close()
    assert owner_of_peer(ours, "") == os.getuid()


def test_without_a_free_descriptor_the_peer_is_unknown(stack: ExitStack) -> None:
    """Both lookups fail without descriptors, and work again afterwards."""
    _, accepted, address = called(stack, listening(stack, socket.AF_INET, "127.0.0.1"), socket.AF_INET, "127.0.0.1")
    owner.has_sock_diag.cache_clear()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        seen = owner_of_peer(accepted, address)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert seen is None
    assert owner.has_sock_diag()
    assert owner_of_peer(accepted, address) == os.getuid()


def test_the_tables_are_used_if_netlink_is_denied(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system call filter may deny netlink."""
    _, accepted, address = called(stack, listening(stack, socket.AF_INET, "127.0.0.1"), socket.AF_INET, "127.0.0.1")

    def refuse(*_: object) -> tuple[int, bytes]:
        raise PermissionError(1, "not permitted")

    owner.has_sock_diag.cache_clear()
    monkeypatch.setattr(owner, "_exchange", refuse)
    try:
        assert owner_of_peer(accepted, address) == os.getuid()
    finally:
        owner.has_sock_diag.cache_clear()


def test_a_socket_without_a_connection_has_no_owner(stack: ExitStack) -> None:
    listener = listening(stack, socket.AF_INET, "127.0.0.1")
    _, accepted, _ = called(stack, listener, socket.AF_INET, "127.0.0.1")
    assert owner_of_peer(accepted, ("no address", 1)) is None
    assert owner_of_peer(accepted, ("127.0.0.1", 1)) is None
    assert owner_of_peer(accepted, ("::1", 1)) is None
    listener.close()
    assert owner_of_peer(listener, ("127.0.0.1", 1)) is None
