"""A real client proxy behind real outbound proxies: tinyproxy for HTTP, microsocks for SOCKS5."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.plain_backends import Backend, connect, echo, free_port, receive_all, receive_exactly
from tests.support.processes import Process, Proxy, eventually
from tests.support.requirements import program
from tests.support.workloads import Workloads

LOGIN, WRONG = "user:p%34ss", "user:WRONG"  # p4ss: tinyproxy takes letters and digits only
SCHEMES = ["http", "socks5", "socks5h"]
_TINYPROXY = """
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
BasicAuth user p4ss
Timeout 60
"""


@contextmanager
def tinyproxy(directory: Path) -> Iterator[str]:
    port, file = free_port(), directory / "tinyproxy.conf"
    file.write_text(_TINYPROXY.format(port=port))
    yield from _running([program("tinyproxy"), "-d", "-c", str(file)], port)


@contextmanager
def microsocks(_directory: Path) -> Iterator[str]:
    port = free_port()
    argv = [program("microsocks"), "-i", "127.0.0.1", "-p", str(port), "-u", "user", "-P", "p4ss"]
    yield from _running(argv, port)


def _running(argv: list[str], port: int) -> Iterator[str]:
    process = Process(argv, is_merged=True)
    try:
        eventually(lambda: not process.is_running or _listens(port), f"{argv[0]} listens")
        assert process.is_running, process.transcript()
        yield f"127.0.0.1:{port}"
    finally:
        process.stop()
        process.close()


def _listens(port: int) -> bool:
    with suppress(ConnectionRefusedError), connect(("127.0.0.1", port)):
        return True
    return False


PROXIES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "http": tinyproxy,
    "socks5": microsocks,
    "socks5h": microsocks,
}


def client_through(workloads: Workloads, scheme: str, target: str, *, login: str = LOGIN) -> Proxy:
    """A client proxy that goes through an outbound proxy of its own."""
    place = workloads.enter(PROXIES[scheme](workloads.directory))
    return workloads.client(target, f"--proxy={scheme}://{login}@{place}")


def error_of(proxy: Proxy) -> str:
    """What a client proxy says of a connection that leads nowhere; its password is not in it."""
    with connect(proxy.address) as sock, suppress(ConnectionResetError):
        assert receive_all(sock) == b""
    line = proxy.wait_for("error on dial: .*").group()
    assert not any(word in proxy.transcript() for word in ("p4ss", "p%34ss", "WRONG"))
    return line


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bytes_pass_through_an_outbound_proxy(workloads: Workloads, scheme: str) -> None:
    server = workloads.server(workloads.enter(Backend(echo)).target)
    client = client_through(workloads, scheme, f"localhost:{server.address[1]}")
    data = os.urandom(100_000)
    for _ in range(3):
        with connect(client.address) as sock:
            sock.sendall(data)
            assert receive_exactly(sock, len(data)) == data
    client.wait_for("closed pipe: .*forwarded 97.7 KiB, returned 97.7 KiB, ", count=3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_wrong_password_is_said_to_be_one(workloads: Workloads, scheme: str) -> None:
    line = error_of(client_through(workloads, scheme, "localhost:1", login=WRONG))
    assert f"proxy {scheme}://127.0.0.1:" in line
    assert ("refused: 401 " in line or "refused: 407 " in line) if scheme == "http" else "wrong username or password" in line
    assert "reason=refused-by-proxy" in line


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_target_that_the_proxy_cannot_reach_is_an_error_on_dial(workloads: Workloads, scheme: str) -> None:
    line = error_of(client_through(workloads, scheme, f"127.0.0.1:{free_port()}"))
    assert "refused: 500 " in line if scheme == "http" else "refused: connection refused (reply 5)" in line
    assert "reason=refused-by-proxy" in line


def test_a_proxy_of_another_kind_is_not_understood(workloads: Workloads) -> None:
    place = workloads.enter(microsocks(workloads.directory))
    client = workloads.client("localhost:1", f"--proxy=http://{place}")
    assert "reason=invalid-proxy-response" in error_of(client)


def test_a_proxy_that_is_not_there_is_an_error_on_dial(workloads: Workloads) -> None:
    client = workloads.client("localhost:1", f"--proxy=http://127.0.0.1:{free_port()}")
    assert "connection refused reason=connection-refused" in error_of(client)
