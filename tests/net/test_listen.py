"""Listening: families, shared ports, stale sockets; real sockets."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.unix_listener import other_listener
from tunnel.errors import ConfigError
from tunnel.net import listen, sockets
from tunnel.net.address import SystemdAddress, parse_address
from tunnel.net.listen import Listener, Successor, open_listener
from tunnel.net.sockets import SocketAddress


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def opened(stack: ExitStack, text: str) -> Listener:
    return stack.enter_context(closing(open_listener(parse_address(text))))


def port_of(listener: Listener) -> int:
    port = listener.socket.getsockname()[1]
    assert isinstance(port, int)
    return port


def reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 10).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "reached", "spelt"),
    [
        ("127.0.0.1", {"127.0.0.1"}, r"tcp:127\.0\.0\.1:\d+"),
        ("localhost", {"127.0.0.1"}, r"tcp:127\.0\.0\.1:\d+"),
        ("[::1]", {"::1"}, r"tcp:\[::1\]:\d+"),
        ("", {"127.0.0.1", "::1"}, r"tcp:\[::\]:\d+"),
        ("[::]", {"127.0.0.1", "::1"}, r"tcp:\[::\]:\d+"),
        ("0.0.0.0", {"127.0.0.1"}, r"tcp:0\.0\.0\.0:\d+"),
    ],
)
def test_the_host_selects_the_address_families(stack: ExitStack, host: str, reached: set[str], spelt: str) -> None:
    listener = opened(stack, f"{host}:0")
    assert {peer for peer in ("127.0.0.1", "::1") if reaches(peer, port_of(listener))} == reached
    assert re.fullmatch(spelt, str(listener))


def test_a_name_with_both_families_is_bound_to_ipv4(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    both = (SocketAddress(socket.AF_INET6, ("::1", 0, 0, 0)), SocketAddress(socket.AF_INET, ("127.0.0.1", 0)))
    monkeypatch.setattr(listen, "resolve", lambda *_args, **_options: both)
    assert str(opened(stack, "db.test:0")).startswith("tcp:127.0.0.1:")
    monkeypatch.setattr(listen, "resolve", lambda *_args, **_options: both[:1])
    assert str(opened(stack, "db.test:0")).startswith("tcp:[::1]:")


def test_two_processes_may_share_a_port(stack: ExitStack) -> None:
    first = opened(stack, "127.0.0.1:0")
    assert port_of(opened(stack, f"127.0.0.1:{port_of(first)}")) == port_of(first)


def test_a_port_in_use_by_another_program_is_refused_in_one_line(stack: ExitStack) -> None:
    other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = other.getsockname()[1]
    with pytest.raises(ConfigError, match=f"^cannot listen on 127.0.0.1:{port}: address already in use$"):
        open_listener(parse_address(f"127.0.0.1:{port}"))


def test_an_unknown_name_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(sockets.socket, "getaddrinfo", fail)
    with pytest.raises(ConfigError, match=r"^cannot listen on nowhere\.test:80: name or service not known$"):
        open_listener(parse_address("nowhere.test:80"))


@pytest.mark.parametrize("address", [":8443x", "db.test:8443x", "127.0.0.1:8443x"])
def test_an_unknown_service_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_listener(parse_address(address))
    assert str(refused.value) == f"cannot listen on {address}: unknown service '8443x'; expected a port number"


def test_accepted_connections_have_keep_alive_and_no_delay(stack: ExitStack) -> None:
    listener = opened(stack, "127.0.0.1:0")
    stack.enter_context(socket.create_connection(("127.0.0.1", port_of(listener))))
    accepted = stack.enter_context(listener.socket.accept()[0])
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15


def test_a_stale_unix_socket_is_replaced_and_removed_at_close(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = open_listener(parse_address(f"unix:{path}"))
    assert str(listener) == f"unix:{path}"
    stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
    listener.close()
    assert not path.exists()


def test_a_unix_socket_in_use_and_another_file_are_kept(stack: ExitStack, tmp_path: Path) -> None:
    used, plain = tmp_path / "used", tmp_path / "plain"
    opened(stack, f"unix:{used}")
    plain.write_text("precious")
    for path in (used, plain):
        with pytest.raises(ConfigError, match="address already in use"):
            open_listener(parse_address(f"unix:{path}"))
    assert plain.read_text() == "precious"
    stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(used))


def test_the_socket_file_of_a_later_process_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = open_listener(parse_address(f"unix:{path}"))
    path.rename(tmp_path / "moved")
    with closing(open_listener(parse_address(f"unix:{path}"))):
        first.close()
        assert path.exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "", "0.0.0.0"])
def test_a_socket_that_shares_the_port_is_the_successor(stack: ExitStack, host: str) -> None:
    first = opened(stack, f"{host}:0")
    assert first.find_successor() is Successor.NONE
    second = opened(stack, f"{host}:{port_of(first)}")
    assert first.find_successor() is second.find_successor() is Successor.SAME_PORT
    first.close()
    assert second.find_successor() is Successor.NONE


def test_the_service_manager_is_the_successor_of_an_inherited_socket(stack: ExitStack) -> None:
    sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    assert Listener(sock, is_inherited=True).find_successor() is Successor.MANAGER


def test_an_abstract_socket_has_no_successor(stack: ExitStack) -> None:
    assert opened(stack, f"unix:@tunnel-test-{os.getpid()}").find_successor() is Successor.NONE


def test_another_process_takes_a_path_over_without_a_moment_of_refusal(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    ours = opened(stack, f"unix:{path}")
    assert ours.find_successor() is Successor.NONE
    waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
    waiting.connect(str(path))
    with other_listener(path) as theirs:
        assert ours.find_successor() is Successor.SAME_PATH
        assert os.listdir(tmp_path) == ["s"]
        assert theirs == f"unix:{path}"
        ours.socket.accept()[0].close()  # the probe, or the one that waits: the queue is still ours
        ours.close()
        assert path.exists()
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
    assert ours.find_successor() is Successor.NONE


def test_a_path_with_a_full_queue_can_be_taken_over(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    ours = opened(stack, f"unix:{path}")
    ours.socket.listen(0)
    stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
    with other_listener(path):
        assert ours.find_successor() is Successor.SAME_PATH


def test_a_failed_replacement_leaves_the_listener_as_it_was(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    opened(stack, f"unix:{path}")
    monkeypatch.setattr(listen, "find_replaceable", lambda _path: 0)

    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ConfigError, match=f"^cannot listen on unix:{path}: permission denied$"):
        open_listener(parse_address(f"unix:{path}"))
    assert os.listdir(tmp_path) == ["s"]
    stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))


def test_a_file_of_another_user_is_not_replaced(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    opened(stack, f"unix:{path}")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="address already in use"):
        open_listener(parse_address(f"unix:{path}"))


def test_an_abstract_socket_leaves_no_file(stack: ExitStack) -> None:
    name = f"@tunnel-test-{os.getpid()}"
    assert str(opened(stack, f"unix:{name}")) == f"unix:{name}"
    assert not Path(name).exists()


def test_a_systemd_address_needs_an_inherited_socket() -> None:
    with pytest.raises(ConfigError, match=r"^systemd:web: no inherited sockets; expected"):
        open_listener(SystemdAddress("web"))


@pytest.mark.parametrize(("port", "advice"), [("443", ": ports below .* need CAP_NET_BIND_SERVICE, or"), ("60000", "$")])
def test_a_privileged_port_that_is_denied_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, port: str, advice: str) -> None:
    def deny(_socket: object, _address: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", deny)
    with pytest.raises(ConfigError, match=f"^cannot listen on 127.0.0.1:{port}: permission denied{advice}"):
        open_listener(parse_address(f"127.0.0.1:{port}"))
