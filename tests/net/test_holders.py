"""The processes that share a port with us, found among all listeners."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tunnel.net.holders import ListeningPorts, SharedPort, describe_holders, find_holders_of_ports, find_shared_port

ME = f"pid {os.getpid()} ({Path('/proc/self/comm').read_text().strip()}), this process itself"
Open = Callable[..., socket.socket]


@pytest.fixture
def listen() -> Iterator[Open]:
    """Opens sockets that let others share their port."""
    with ExitStack() as stack:

        def open_one(host: str, port: int = 0, *, is_v6_only: bool = False) -> socket.socket:
            sock = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if ":" in host:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6_only)
            sock.bind((host, port))
            sock.listen()
            return sock

        yield open_one


@pytest.mark.parametrize(
    ("theirs", "ours", "is_same"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::", "::", True),
        ("0.0.0.0", "127.0.0.1", False),
        ("127.0.0.1", "0.0.0.0", False),
        ("::", "127.0.0.1", False),
        ("127.0.0.1", "::", False),
        ("::", "0.0.0.0", False),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
    ],
)
def test_a_listener_at_an_overlapping_address_is_named(listen: Open, theirs: str, ours: str, is_same: bool) -> None:
    other = listen(theirs)
    assert find_shared_port(listen(ours, other.getsockname()[1]), {}) == SharedPort(ME, is_same)


@pytest.mark.parametrize(("theirs", "ours"), [("127.0.0.2", "127.0.0.1"), ("::1", "127.0.0.1"), ("0.0.0.0", "::1")])
def test_a_listener_at_another_address_is_not_named(listen: Open, theirs: str, ours: str) -> None:
    other = listen(theirs)
    assert find_shared_port(listen(ours, other.getsockname()[1]), {}) is None


def test_a_single_or_closed_socket_shares_no_port(listen: Open) -> None:
    ours = listen("127.0.0.1")
    port = ours.getsockname()[1]
    assert find_shared_port(ours, {}) is None
    assert describe_holders(port) == ME
    with socket.create_connection(ours.getsockname()):
        assert find_shared_port(ours, {}) is None, "connections of the port are no listeners"
    ours.close()
    assert find_shared_port(ours, {}) is None
    assert describe_holders(port) == ""


def make_proc(place: Path, ours: socket.socket, *rows: str, table: str = "tcp") -> Path:
    """A /proc with these rows of a table; `PORT` in them is the port of our socket."""
    (place / "self/net").mkdir(parents=True)
    text = "\n".join(["  sl  local_address rem_address   st ...", *rows]) + "\n"
    (place / "self/net" / table).write_text(text.replace("PORT", f"{ours.getsockname()[1]:04X}"))
    return place


def row(user: int, inode: int = 7) -> str:
    return f"   0: 0100007F:PORT 00000000:0000 0A 00000000:00000000 00:00000000 00000000 {user:5d} 0 {inode} 1 0 100"


def test_a_hidden_process_is_named_if_it_was_found_before(listen: Open, tmp_path: Path) -> None:
    ours, me = listen("127.0.0.1"), os.geteuid()
    proc = make_proc(tmp_path, ours, row(me))
    assert find_shared_port(ours, {}, proc) == SharedPort(f"another process of user {me}", True)
    assert find_shared_port(ours, {7: ((5000812, "redis"), (5000813, "redis"))}, proc) == SharedPort(
        "pid 5000812 (redis), pid 5000813 (redis)", True
    )
    assert find_shared_port(ours, {8: ((5000812, "redis"),)}, proc) == SharedPort(f"another process of user {me}", True)


def test_the_tables_are_read_once_for_many_sockets(listen: Open, tmp_path: Path) -> None:
    ours, other = listen("127.0.0.1"), listen("127.0.0.1")
    ports = ListeningPorts(make_proc(tmp_path, ours, row(os.geteuid())))
    assert ports.count_sharing(ours) == 1
    (tmp_path / "self/net/tcp").unlink()
    assert ports.count_sharing(ours) == 1
    assert ports.count_sharing(other) == 0


def test_a_socket_of_another_user_shares_nothing(listen: Open, tmp_path: Path) -> None:
    """The kernel does not allow it."""
    ours = listen("127.0.0.1")
    assert find_shared_port(ours, {}, make_proc(tmp_path, ours, row(os.geteuid() + 1))) is None


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [""],
        ["nonsense"],
        ["   0: 0100007F:XYZ 0 0A 0 0 0 0 0 0"],
        ["   0: 01:PORT 0 0A 0 0 0 0 0 7"],
        ["   0: 0100007F:PORT 0 0A"],
        ["\udcff"],
    ],
)
def test_unreadable_tables_name_no_process(listen: Open, tmp_path: Path, rows: list[str]) -> None:
    ours = listen("127.0.0.1")
    (tmp_path / "self/net").mkdir(parents=True)
    (tmp_path / "self/net/tcp").write_bytes("\n".join(["head", *rows]).encode(errors="surrogateescape"))
    port = ours.getsockname()[1]
    assert find_shared_port(ours, {}, tmp_path) is None
    assert find_shared_port(ours, {}, tmp_path / "nowhere") is None
    assert (describe_holders(port, tmp_path), find_holders_of_ports([port], tmp_path)) == ("", {})


def test_holders_are_found_by_the_inode_of_the_socket(listen: Open) -> None:
    ours = listen("127.0.0.1")
    inode = os.fstat(ours.fileno()).st_ino
    assert list(find_holders_of_ports([ours.getsockname()[1]])) == [inode]
    assert find_holders_of_ports([]) == {}


def add_process(proc: Path, pid: int, parent: int, name: str, program: str) -> None:
    """A process in this /proc that has the socket with the inode 7."""
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "fd/3").symlink_to("socket:[7]")
    (folder / "exe").symlink_to(program)
    (folder / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0\n")


@pytest.mark.parametrize(
    ("processes", "named"),
    [
        ([(812, 1, "nginx", "/nginx"), (813, 812, "nginx", "/nginx"), (814, 812, "nginx", "/nginx")], "pid 812 (nginx)"),
        ([(1, 0, "systemd", "/systemd"), (812, 1, "nginx", "/nginx")], "pid 1 (systemd), pid 812 (nginx)"),
        ([(812, 1, "a) S 5 (b", "/a"), (5, 1, "c", "/a")], "pid 5 (c), pid 812 (a) S 5 (b)"),
        ([(813, 812, "left", "/a")], "pid 813 (left)"),
    ],
    ids=["workers", "service manager", "odd name", "without parent"],
)
def test_workers_are_not_named_beside_their_parent(
    listen: Open, tmp_path: Path, processes: list[tuple[int, int, str, str]], named: str
) -> None:
    ours = listen("127.0.0.1")
    proc = make_proc(tmp_path, ours, row(os.geteuid()))
    for process in processes:
        add_process(proc, *process)
    assert find_shared_port(ours, {}, proc) == SharedPort(named, True)
    assert describe_holders(ours.getsockname()[1], proc) == named


@pytest.mark.parametrize("text", ["", "812", "812 (a) S"])
def test_a_process_that_ends_meanwhile_is_left_out(listen: Open, tmp_path: Path, text: str) -> None:
    ours = listen("127.0.0.1")
    proc = make_proc(tmp_path, ours, row(os.geteuid()))
    add_process(proc, 812, 1, "a", "/a")
    (proc / "812/stat").write_text(text)
    assert describe_holders(ours.getsockname()[1], proc) == "a process of another user or container"
