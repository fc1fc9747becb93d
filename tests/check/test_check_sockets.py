"""Each obstacle on the path to a Unix socket has a finding with advice."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.check_runner import another_user, encode_with_verdict, leave_behind, listening
from tunnel.check.finding import Verdict
from tunnel.check.listening import examine_listener
from tunnel.check.sockets import examine_socket
from tunnel.check.workload_attributes import group_name, user_name
from tunnel.net.address import UnixAddress


def examine(path: Path | str, mounts: str = "") -> str:
    table = Path(f"{path}.mounts") if mounts else Path("/dev/null")
    if mounts:
        table.write_text(f"36 35 98:0 / {mounts} rw,noatime master:1 - tmpfs tmpfs rw\n")
    return encode_with_verdict(examine_socket("socket", str(path), "the agent", mounts=table))


def test_a_socket_that_accepts_is_ok(public: Path) -> None:
    with listening(public / "a.sock"):
        assert examine_socket("socket", str(public / "a.sock"), "the agent").verdict is Verdict.OK


def test_an_abstract_socket_is_checked_too() -> None:
    name = f"@tunnel-check-{os.getpid()}"
    with listening("\0" + name[1:]):
        assert examine(name).startswith("ok ")
    assert "no process listens" in examine(name)


def test_what_is_missing_is_named(public: Path) -> None:
    with listening(public / "spire-agent.sock"):
        assert f"directory {public}/no does not exist" in examine(public / "no" / "agent.sock")
        wrong_name = examine(public / "agent.sock")
        assert f"agent.sock does not exist in {public}" in wrong_name
        assert "sockets there: spire-agent.sock" in wrong_name
        directory = examine(public)
        assert "is a directory -> use the path of the socket in it" in directory
        assert "spire-agent.sock" in directory
    (public / "file").touch()
    assert "file is not a socket" in examine(public / "file")
    assert "file is not a directory" in examine(public / "file" / "agent.sock")
    (public / "link").symlink_to("nowhere")
    assert "a dangling link" in examine(public / "link")


def test_a_socket_that_was_left_behind_is_not_an_agent(public: Path) -> None:
    leave_behind(public / "a.sock")
    assert "no process listens on" in examine(public / "a.sock")
    assert "start the agent" in examine(public / "a.sock")


def test_a_socket_mounted_as_a_single_file_is_reported(public: Path) -> None:
    path = public / "a b.sock"
    mounted = os.path.realpath(path).replace(" ", "\\040")
    with listening(path):
        assert examine(path, mounted).startswith("warning ")
        assert "mount its directory" in examine(path, mounted)
        assert examine(path, str(public)).startswith("ok ")
    assert "mount its directory: the agent was restarted" in examine(path, mounted)


def test_the_directory_that_denies_is_named_with_its_owner(public: Path) -> None:
    closed = public / "closed"
    (closed / "in").mkdir(parents=True)
    with listening(closed / "in" / "a.sock"):
        closed.chmod(0o600)  # which stops its owner too, but not root
        owner = f"owner uid {user_name(os.geteuid())} gid {group_name(os.getegid())}, mode 0600"
        with another_user():
            line = examine(closed / "in" / "a.sock")
            who = user_name(os.geteuid())
        closed.chmod(0o700)
    assert line.startswith("problem ")
    assert f"directory {closed} denies access to uid {who}: {owner}" in line
    assert "search permission (x)" in line


def test_a_socket_that_denies_is_named_with_its_owner(public: Path) -> None:
    path = public / "a.sock"
    with listening(path):
        path.chmod(0o555)
        with another_user():
            line = examine(path)
        assert f"socket {path} denies access to uid" in line
        assert "mode 0555" in line
        assert "write permission (w)" in line
        path.chmod(0o777)
        with another_user():
            assert examine(path).startswith("ok ")


def test_a_socket_that_accepts_no_connection_is_a_timeout(public: Path) -> None:
    with listening(public / "a.sock", backlog=0) as listener:
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        assert "accepts no connection" in examine(public / "a.sock")
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize("path", ["/" + "x" * 200, "/tmp/\x1b[31m"])
def test_an_impossible_path_is_one_escaped_line(path: str) -> None:
    line = examine(path)
    assert line.startswith("problem ")
    assert line.isprintable()


def test_a_current_directory_that_is_gone_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert examine_socket("target", "a.sock", "the target").verdict is Verdict.PROBLEM
    assert examine_listener("listen", UnixAddress("a.sock")).name == "listen"
