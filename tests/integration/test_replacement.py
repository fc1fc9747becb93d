"""A process replaces another one under load, and no connection attempt fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.connection_load import ConnectionLoad, plain_exchange, tls_exchange
from tests.support.plain_backends import Backend, connect, echo, free_port
from tests.support.processes import LIMIT, WORKERS, Proxy, bare_environment, eventually, tunnel_argv
from tests.support.replacement_page import replacement_file
from tests.support.requirements import program
from tests.support.run_line import server
from tests.support.script_runner import SCRIPTS
from tests.support.workloads import CLIENT, SERVER, Workloads

RATE = 200  # connections per second
ACTIVATE = SCRIPTS / "socket_activation.py"
HANDED_OVER = "listener closed after hand-over"


def replace(load: ConnectionLoad, times: int, first: Proxy, start: Callable[[], Proxy]) -> Proxy:
    """Stop each process as soon as the next one listens; return the last one."""
    for _ in range(times):
        following = start()
        following.wait_for("listening for connections on")
        assert first.stop() == 0
        first = following
        load.wait_for_more(RATE // 4)
    return first


@pytest.mark.parametrize(("host", "times"), [("127.0.0.1", 10), ("", 3), ("[::1]", 3)], ids=["ipv4", "dual-stack", "ipv6"])
def test_replacements_under_load_fail_no_connection(workloads: Workloads, host: str, times: int) -> None:
    backend = workloads.enter(Backend(echo))
    listen = f"{host}:{free_port()}"

    def start() -> Proxy:
        return workloads.server(backend.target, listen=listen)

    first = start()
    address = (host.strip("[]") or "127.0.0.1", first.address[1])
    with ConnectionLoad(tls_exchange(address, workloads.identity(CLIENT)), rate=RATE) as load:
        replace(load, times, first, start)
    assert not load.failures
    assert first.matches(HANDED_OVER)


def test_replacements_need_no_capability(workloads: Workloads) -> None:
    target = workloads.enter(Backend(echo)).target
    listen = f"127.0.0.1:{free_port()}"
    before = (program("setpriv"), "--bounding-set=-all", "--inh-caps=-all") if os.getuid() == 0 else ()

    def start() -> Proxy:
        rule = f"--allow-id={CLIENT}"
        return workloads.proxy("server", SERVER, f"--listen={listen}", f"--target={target}", rule, before=before)

    first = start()
    with ConnectionLoad(tls_exchange(first.address, workloads.identity(CLIENT)), rate=RATE) as load:
        replace(load, 3, first, start)
    assert not load.failures
    assert first.matches(HANDED_OVER)


def test_several_processes_on_one_port_can_end_at_once(workloads: Workloads) -> None:
    """Each of them selects sockets for the whole group."""
    backend = workloads.enter(Backend(echo))
    olds = [workloads.server(backend.target)]
    address = olds[0].address
    with ConnectionLoad(tls_exchange(address, workloads.identity(CLIENT)), rate=RATE) as load:
        olds += [workloads.server(backend.target, listen=olds[0].target) for _ in range(2)]
        assert all(old.address == address for old in olds)
        last = workloads.server(backend.target, listen=olds[0].target)
        assert last.address == address
        assert [old.stop() for old in (olds[1], olds[0])] == [0, 0]
        load.wait_for_more(RATE // 4)
        assert olds[2].stop() == 0
        load.wait_for_more(RATE // 4)
    assert not load.failures


def test_replacements_of_a_unix_listener_fail_no_connection(workloads: Workloads) -> None:
    path = workloads.directory / "front"
    target = workloads.server(workloads.enter(Backend(echo)).target).target

    def start() -> Proxy:
        return workloads.client(target, listen=f"unix:{path}")

    first = start()
    first.wait_for("listening for connections on")
    with ConnectionLoad(plain_exchange(str(path)), rate=RATE) as load:
        last = replace(load, 5, first, start)
    assert last.matches(f"took over listener of another process: listen=unix:{path} pid=[0-9]+$")
    assert not load.failures
    assert first.matches(f"{HANDED_OVER}: listen=unix:{path}")
    assert last.stop() == 0
    assert not path.exists()


@contextmanager
def ended(pid: int) -> Iterator[None]:
    """End a process that is no child of ours."""
    yield
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def activated(workloads: Workloads, sock: socket.socket, target: str) -> Proxy:
    """A server proxy that inherits the socket as from a service manager."""
    line = tunnel_argv(*server(workloads, target, listen="systemd:web"))
    argv = [sys.executable, str(ACTIVATE), f"web=fd:{sock.fileno()}", "--", *line]
    return workloads.watch(Proxy(argv, environ=bare_environment(), pass_fds=[sock.fileno()]))


def test_processes_with_the_same_inherited_socket_replace_each_other(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    sock = workloads.enter(socket.create_server(("127.0.0.1", 0), backlog=4096))
    first = activated(workloads, sock, backend.target)
    address = first.address
    with ConnectionLoad(tls_exchange(address, workloads.identity(CLIENT)), rate=RATE) as load:
        last = replace(load, 3, first, lambda: activated(workloads, sock, backend.target))
        # A restart instead: while no process is there, connections wait.
        assert last.stop() == 0
        assert activated(workloads, sock, backend.target).address == address
        load.wait_for_more(RATE)
    assert not load.failures
    assert not first.matches(HANDED_OVER)


def test_the_shutdown_timeout_ends_a_hand_over(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    first = workloads.server(backend.target, "--shutdown-timeout=0s")
    assert workloads.server(backend.target, listen=first.target).address == first.address
    assert first.stop() == 0
    assert first.matches(HANDED_OVER)


def serve(workloads: Workloads, target: str, *, listen: str) -> list[str]:
    """The arguments of `tunnel serve` with a file that has one server."""
    file = workloads.directory / "tunnel.toml"
    file.write_text(
        f'workers = {WORKERS}\n[identity.default]\nworkload-api = "{workloads.sockets[SERVER]}"\n'
        f'[[server]]\nlisten = "{listen}"\ntarget = "{target}"\naccess = [{{ allow = "{CLIENT}" }}]\n'
    )
    return ["serve", f"--config={file}"]


@pytest.mark.parametrize("command", [server, serve])
def test_the_script_of_the_page_replaces_a_process(
    workloads: Workloads, tmp_path: Path, command: Callable[..., list[str]]
) -> None:
    backend = workloads.enter(Backend(echo))
    port = free_port()
    script = replacement_file("replace.sh")
    line = tunnel_argv(*command(workloads, backend.target, listen=f"127.0.0.1:{port}"))
    environ = {**bare_environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run() -> int:
        subprocess.run(["sh", "-c", script, "replace.sh", str(tmp_path), *line], env=environ, check=True, timeout=LIMIT)
        pid = int((tmp_path / "pid").read_text())
        workloads.enter(ended(pid))
        return pid

    first = run()
    with ConnectionLoad(tls_exchange(("127.0.0.1", port), workloads.identity(CLIENT)), rate=RATE) as load:
        second = run()
        eventually(lambda: not Path(f"/proc/{first}").exists(), "the first process has ended")
    assert not load.failures
    assert Path(f"/proc/{second}").exists()
    assert HANDED_OVER in (tmp_path / "log").read_text()


def test_a_new_process_does_not_listen_and_is_not_ready_before_it_has_an_identity(workloads: Workloads, tmp_path: Path) -> None:
    backend = workloads.enter(Backend(echo))
    first = workloads.server(backend.target)
    manager = workloads.enter(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
    manager.bind(str(tmp_path / "notify"))
    (tmp_path / "late").mkdir()
    late = workloads.enter(closing(Workloads(tmp_path / "late", agent=False)))
    line = server(late, backend.target, listen=first.target)
    environ = {**bare_environment(), "NOTIFY_SOCKET": str(tmp_path / "notify")}
    second = workloads.watch(Proxy(tunnel_argv(*line), environ=environ))
    second.wait_for("Workload API")
    with pytest.raises(BlockingIOError):
        manager.recv(4096)
    late.api.start()
    manager.settimeout(LIMIT)
    assert manager.recv(4096) == b"READY=1"
    assert first.stop() == 0  # it would serve the next connection, if the second process did not listen yet
    connect(first.address).close()
