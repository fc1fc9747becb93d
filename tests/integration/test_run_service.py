"""`tunnel run` elsewhere: under a service manager, confined, and with a proxy that dies."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.plain_backends import Backend, connect, echo, receive_all
from tests.support.processes import LIMIT, Process, bare_environment, tunnel_argv
from tests.support.run_line import client, has_echo, server
from tests.support.script_runner import SCRIPTS
from tests.support.tls_peer import TlsPeer
from tests.support.workloads import ANY_PORT, CLIENT, SERVER, Workloads

ACTIVATE = SCRIPTS / "socket_activation.py"
# A feed that goes on until the second update, and then never again.
DYING = """
import sys
from tunnel.errors import IdentityError, IdentityFault
from tunnel.proxy.workload_api_source import WorkloadApiSource

apply = WorkloadApiSource._apply

async def fail_later(self, event):
    if self._tracker.generation:
        self._sink.fail(IdentityError(IdentityFault.CRASHED, "broken for ever"))
    else:
        await apply(self, event)

WorkloadApiSource._apply = fail_later
from tunnel.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def backend(workloads: Workloads) -> Backend:
    return workloads.enter(Backend(echo))


def told(manager: socket.socket, *, beats: bool = False) -> str:
    """The next datagram, of those about the watchdog or of the others."""
    while True:
        datagram = manager.recv(4096).decode()
        if (datagram == "WATCHDOG=1") == beats:
            return datagram


def ask(place: Path, line: str) -> str:
    """A status port's answer."""
    with connect(str(place)) as sock:
        sock.sendall(f"{line} HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
        return receive_all(sock).decode()


def test_a_service_manager_sees_one_service_and_the_command_nothing_of_it(workloads: Workloads, backend: Backend) -> None:
    place = workloads.directory
    names = ("web", "health", "door", "state", "notify")
    web, health, door, state, notify = (place / name for name in names)
    manager = workloads.enter(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    manager.bind(str(notify))
    manager.settimeout(LIMIT)
    ours = {"NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": "20000", "KEYSTORE_PASS": "secret", "KEPT": "1"}
    parts = (
        *server(workloads, backend.target, "--status=systemd:health", "--enable-shutdown", listen="systemd:web"),
        "+",
        *client(workloads, "127.0.0.1:1", f"--status=unix:{state}", listen=f"unix:{door}"),
    )
    script = "env | cut -d= -f1; ls /proc/$$/fd; trap 'exit 6' TERM; echo up; read line; read line"
    sockets = [sys.executable, str(ACTIVATE), f"web=unix:{web}", f"health=unix:{health}", "--"]
    argv = [*sockets, *tunnel_argv("run", *parts, "--", "sh", "-c", script)]
    process = workloads.watch(Process(argv, environ={**bare_environment(), **ours}))
    process.wait_for("^up$")
    assert [told(manager), told(manager)] == ["READY=1", "STATUS=listening | running sh"]
    assert [told(manager, beats=True) for _ in range(3)] == ["WATCHDOG=1"] * 3
    said = set(process.lines)
    assert "KEPT" in said
    assert not said & ours.keys() - {"KEPT"}
    assert not [name for name in said if name.startswith(("LISTEN_", "WATCHDOG_"))]
    assert {name for name in said if name.isdecimal()} == {"0", "1", "2"}
    peer = TlsPeer(workloads.enter(connect(str(web))), workloads.identity(CLIENT))
    peer.shake_hands()
    assert has_echo(peer)
    for where, target, who in ((health, backend.target, SERVER), (state, "127.0.0.1:1", CLIENT)):
        answer = ask(where, "GET /_status")
        assert f'"forward_address":"{target}"' in answer, "each has a status of its own"
        assert f'"spiffe_id":"{who}"' in answer
    assert " 200 " in ask(health, "POST /_shutdown")
    assert told(manager) == "STOPPING=1"
    peer.end()
    assert process.exit_code() == 6
    assert process.lines[-1] == "up", "the log is on standard error"
    assert " stopped" in process.complaints[-1], "of whichever proxy ended last"


def test_a_proxy_that_dies_ends_the_whole_with_its_reason(workloads: Workloads) -> None:
    script = "trap 'echo told; exit 3' TERM; echo up; read line; read line"
    parts = (*server(workloads, "127.0.0.1:1"), "+", *client(workloads, "127.0.0.1:1", "--quiet=all"))
    argv = [sys.executable, "-c", DYING, "run", *parts, "--", "sh", "-c", script]
    process = workloads.watch(Process(argv, environ=bare_environment()))
    process.wait_for("^up$")
    workloads.api.rotate_svids()
    process.wait_for("^told$")
    assert process.exit_code() == 125
    assert process.complaints == ["tunnel: error: broken for ever"], "--quiet of one is that of all"


def test_proxies_are_confined_and_the_command_is_not(workloads: Workloads) -> None:
    """A certificate that has moved to where nobody has named anything can be read by the command alone."""
    command_files = workloads.identity(SERVER)
    with TemporaryDirectory(dir="/var/tmp") as name:  # /tmp is open to the proxies
        named, other = Path(name, "named"), Path(name, "other")
        for directory in (named, other):
            directory.mkdir()
            shutil.copy(command_files.chain, directory)
            shutil.copy(command_files.key, directory)
        link = named / "link"
        link.symlink_to(named / command_files.chain.name)
        line = ("--timed-reload=50ms", f"--cert={link}", f"--key={named / command_files.key.name}", f"--cacert={link}")
        part = ("server", f"--listen={ANY_PORT}", "--target=127.0.0.1:1", "--allow-cn=x", *line)
        script = f"echo up; while read word; do head -n1 {link}; done"
        argv = tunnel_argv("run", *part, "--", "sh", "-c", script)
        process = workloads.watch(Process(argv, environ=bare_environment(), is_merged=True))
        process.wait_for("^up$")
        if process.matches("unable to set up landlock"):
            pytest.skip("this kernel does not offer Landlock")
        fresh = named / "fresh"
        fresh.symlink_to(other / command_files.chain.name)
        fresh.rename(link)
        process.wait_for("permission denied")
        process.say("now")
        process.wait_for("^-----BEGIN CERTIFICATE-----$")
        process.hush()
        assert process.exit_code() == 0
