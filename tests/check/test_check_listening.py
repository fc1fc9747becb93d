"""Whether an address can be listened on, without accepting a connection or changing a file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.check_runner import another_user, leave_behind, listening
from tests.support.unix_listener import other_listener
from tunnel.check.finding import Finding, Verdict
from tunnel.check.listening import examine_listener
from tunnel.net.address import parse_listen_address
from tunnel.net.holders import describe_holders


def examine(text: object) -> Finding:
    return examine_listener("listen", parse_listen_address(str(text)))


@pytest.mark.parametrize("text", ["127.0.0.1:0", "localhost:0", ":0", "[::1]:0", "unix:@tunnel-check-free"])
def test_a_free_address_is_ok(text: str) -> None:
    assert examine(text).verdict is Verdict.OK


def test_a_port_in_use_is_reported_with_its_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = examine(f"127.0.0.1:{port}")
        assert found.verdict is Verdict.PROBLEM
        assert f"in use by pid {os.getpid()} (" in found.detail
    assert describe_holders(port) == ""


def test_a_port_that_is_shared_takes_no_connection_away() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = server.getsockname()
        found = examine(f"127.0.0.1:{address[1]}")
        assert found.verdict is Verdict.WARNING
        assert "share the port" in found.detail
        with socket.create_connection(address):
            server.accept()[0].close()


def test_a_port_that_is_listened_on_at_another_address_is_free() -> None:
    # Not 127.0.0.1: connections of other tests have local ports there.
    with socket.create_server(("127.0.0.2", 0)) as server:
        assert examine(f"127.0.0.3:{server.getsockname()[1]}").verdict is Verdict.OK


def test_an_address_of_another_machine_is_a_problem() -> None:
    assert "is not an address of this machine" in examine("192.0.2.1:8443").detail
    assert "nowhere.invalid" in examine("nowhere.invalid:8443").detail


def test_a_low_port_needs_a_capability() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    with another_user():
        found = examine("127.0.0.1:7")
    assert found.verdict is (Verdict.PROBLEM if lowest > 7 else Verdict.OK)
    assert lowest <= 7 or "CAP_NET_BIND_SERVICE" in found.advice


def test_a_path_is_judged_and_left_as_it_is(public: Path) -> None:
    leave_behind(public / "stale.sock")
    (public / "file").touch()
    before = sorted(os.listdir(public))
    assert "can be created" in examine(f"unix:{public}/new.sock").detail
    assert "will be replaced" in examine(f"unix:{public}/stale.sock").detail
    assert "is not a socket" in examine(f"unix:{public}/file").detail
    assert "does not exist" in examine(f"unix:{public}/no/new.sock").detail
    public.chmod(0o555)
    with another_user():
        assert "no write permission in" in examine(f"unix:{public}/new.sock").detail
    public.chmod(0o755)
    assert sorted(os.listdir(public)) == before
    with listening(public / "busy.sock"):
        assert "in use by another process" in examine(f"unix:{public}/busy.sock").detail
    with other_listener(public / "ours.sock"):
        found = examine(f"unix:{public}/ours.sock")
        assert found.verdict is Verdict.WARNING
        assert "of this program: a new process takes it over" in found.detail


def test_sockets_of_a_service_manager_are_not_checked() -> None:
    assert examine("systemd:web").verdict is Verdict.SKIPPED
    assert examine("launchd:web").verdict is Verdict.PROBLEM
