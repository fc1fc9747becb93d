"""Under `tunnel exec` a command notifies the service manager as if it were the main process, which we are."""

from __future__ import annotations

import array
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_runner import environment
from tests.support.plain_backends import Backend, echo
from tests.support.processes import LIMIT, Process, tunnel_argv
from tests.support.requirements import program
from tests.support.workloads import SERVER, Workloads
from tunnel.net.notify_relay import keep_main_process

ID = f"--verify-id={SERVER}"
NOTIFY = """
import array, os, socket, sys
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"])
"""


class Manager:
    """The socket of a service manager; it sees who sends, as systemd does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(LIMIT)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(address.replace("@", "\0"))

    def receive(self) -> tuple[bytes, int, list[int]]:
        """The next notification, the process that it is from, and descriptors."""
        data, ancillary, _, _ = self.socket.recvmsg(8192, 4096)
        sender, descriptors = 0, array.array("i")
        for _, kind, body in ancillary:
            if kind == socket.SCM_RIGHTS:
                descriptors.frombytes(body)
            elif kind == socket.SCM_CREDENTIALS:
                sender = array.array("i", body)[0]
        return data, sender, list(descriptors)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    found = Manager(str(tmp_path / "manager") if request.param == "path" else f"@tunnel-test-{os.getpid()}")
    yield found
    found.socket.close()


@pytest.fixture
def target(workloads: Workloads) -> str:
    return workloads.server(workloads.enter(Backend(echo)).target).target


def start(workloads: Workloads, target: str, *command: str, **more: str) -> Process:
    """`tunnel exec` with this command, under a shell that lets a manager name it as the process that it watches."""
    argv = tunnel_argv("exec", f"--target={target}", ID, "--", *command)
    shell = ("sh", "-c", 'WATCHDOG_PID=${WATCHDOG_PID:+$$} exec "$@"', "sh")
    return workloads.watch(Process([*shell, *argv], environ=environment(workloads, **more)))


def test_a_command_is_ready_by_a_notification_of_ours(workloads: Workloads, target: str, manager: Manager) -> None:
    script = (
        NOTIFY + 'manager.send(b"READY=1\\nSTATUS=up"); manager.send(b"MAINPID=%d" % os.getpid()); manager.send(b"STOPPING=1")'
    )
    process = start(workloads, target, sys.executable, "-c", script, NOTIFY_SOCKET=manager.address)
    assert manager.receive() == (b"READY=1\nSTATUS=up", process.pid, [])
    assert process.exit_code() == 0
    assert manager.receive() == (b"STOPPING=1", process.pid, []), "sent as the last thing that the command did"
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.receive()


def test_descriptors_are_passed_on_and_not_kept(workloads: Workloads, target: str, manager: Manager) -> None:
    """A barrier is one: its sender waits until everybody has closed it."""
    script = NOTIFY + (
        "read, write = os.pipe()\n"
        'socket.send_fds(manager, [b"BARRIER=1"], [write])\n'
        "os.close(write)\n"
        'print("end", os.read(read, 1), flush=True)\n'
    )
    process = start(workloads, target, sys.executable, "-c", script, NOTIFY_SOCKET=manager.address)
    data, sender, (descriptor,) = manager.receive()
    assert (data, sender) == (b"BARRIER=1", process.pid)
    assert process.is_running
    os.close(descriptor)
    process.wait_for("^end b''$")
    assert process.exit_code() == 0


def test_systemd_notify_and_its_barrier(workloads: Workloads, target: str, manager: Manager) -> None:
    process = start(workloads, target, program("systemd-notify"), "--ready", "--status=up", NOTIFY_SOCKET=manager.address)
    data, sender, _ = manager.receive()
    assert (set(data.split(b"\n")) >= {b"READY=1", b"STATUS=up"}, sender) == (True, process.pid)
    data, sender, (descriptor,) = manager.receive()
    assert (data, sender) == (b"BARRIER=1", process.pid)
    os.close(descriptor)
    assert process.exit_code() == 0


def test_the_watchdog_watches_the_command(workloads: Workloads, target: str, manager: Manager) -> None:
    show = ("sh", "-c", "echo $$ $WATCHDOG_PID $WATCHDOG_USEC")
    process = start(workloads, target, *show, NOTIFY_SOCKET=manager.address, WATCHDOG_PID="us", WATCHDOG_USEC="3000000")
    assert process.exit_code() == 0
    pid, watched, limit = process.lines[0].split()
    assert (watched, limit, pid != str(process.pid)) == (pid, "3000000", True)


def test_one_of_another_process_is_left_alone_and_without_a_manager_there_is_none(workloads: Workloads, target: str) -> None:
    show = ("sh", "-c", "echo $NOTIFY_SOCKET $WATCHDOG_PID $WATCHDOG_USEC.")
    for address in ("", "vsock:2:1234", "relative"):
        process = start(workloads, target, *show, NOTIFY_SOCKET=address, WATCHDOG_USEC="3000000")
        assert process.exit_code() == 0
        assert (process.lines, process.complaints) == (["."], [])


def test_the_socket_is_private_and_goes_at_the_end(workloads: Workloads, target: str, manager: Manager) -> None:
    show = ("sh", "-c", 'stat -c %a "$(dirname "$NOTIFY_SOCKET")"; echo "$NOTIFY_SOCKET"; read line')
    process = start(workloads, target, *show, NOTIFY_SOCKET=manager.address)
    path = process.wait_for("^/.*")[0]
    assert process.lines[0] == "700"
    process.hush()
    assert process.exit_code() == 1  # of `read`
    assert not Path(path).parent.exists()


def test_a_manager_that_is_gone_or_has_no_room_does_not_stop_the_command(
    workloads: Workloads, target: str, manager: Manager
) -> None:
    """What did not fit waits for room; the command does not."""
    script = NOTIFY + 'for n in range(100): manager.send(b"STATUS=%d" % n)\nprint("sent", flush=True)'
    process = start(workloads, target, sys.executable, "-c", script, NOTIFY_SOCKET=manager.address)
    received = [manager.receive()[0] for _ in range(100)]
    assert received == [b"STATUS=%d" % n for n in range(100)]
    process.wait_for("sent")
    assert process.exit_code() == 0
    manager.socket.close()
    process = start(workloads, target, sys.executable, "-c", script, NOTIFY_SOCKET=manager.address)
    assert (process.exit_code(), process.complaints) == (0, [])


def test_without_a_place_for_the_socket_the_command_runs_and_a_line_says_what_is_missing(
    workloads: Workloads, target: str, manager: Manager
) -> None:
    place = workloads.directory / ("x" * 100)  # with it the socket's path is too long
    place.mkdir()
    show = ("sh", "-c", "echo .$NOTIFY_SOCKET")
    process = start(workloads, target, *show, NOTIFY_SOCKET=manager.address, TMPDIR=str(place))
    assert process.exit_code() == 0
    assert process.lines == ["."]
    (line,) = process.complaints
    assert line.startswith("tunnel: warning: the command cannot notify the service manager: cannot open ")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"READY=1", b"READY=1"),
        (b"READY=1\nMAINPID=12\nSTATUS=MAINPID=12\n", b"READY=1\nSTATUS=MAINPID=12\n"),
        (b"MAINPID=12", b""),
        (b"MAINPIDFD=1\nMAINPIDFDID=3", b""),
        (b"\xff\x00", b"\xff\x00"),
    ],
)
def test_another_main_process_is_not_claimed(data: bytes, kept: bytes) -> None:
    assert keep_main_process(data) == kept
