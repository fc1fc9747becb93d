"""A port that another process listens on is shared at random: the proxy that comes second says so, and works."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.plain_backends import Backend, echo, free_port
from tests.support.processes import Process, Proxy, bare_environment, tunnel_argv
from tests.support.requirements import program
from tests.support.run_line import client, server
from tests.support.script_runner import SCRIPTS
from tests.support.tls_peer import tls_connection
from tests.support.workloads import CLIENT, Workloads

ACTIVATE = SCRIPTS / "socket_activation.py"
SHARED = "listens there too: the kernel shares new connections among them at random"


def comm(process: Process) -> str:
    return Path(f"/proc/{process.pid}/comm").read_text().strip()


@pytest.mark.parametrize("flags", [(), ("--disable-landlock",)], ids=["confined", "free"])
def test_a_second_client_on_the_same_port_names_the_first(workloads: Workloads, flags: tuple[str, ...]) -> None:
    """Under Landlock too, where it can see no other process any more."""
    first = workloads.client("127.0.0.1:1")
    second = workloads.client("127.0.0.1:2", *flags, listen=first.target)
    assert second.address == first.address
    warnings = second.matches("warning: --listen")
    assert len(warnings) == 1
    assert warnings[0].endswith(f"warning: --listen {first.target}: pid {first.pid} ({comm(first)}) {SHARED}")
    assert not first.matches("warning")
    assert first.stop() == 0
    assert second.stop() == 0


def test_an_overlapping_address_and_the_status_port_are_looked_at_too(workloads: Workloads) -> None:
    port, other = free_port(), free_port()
    backend = workloads.enter(Backend(echo)).target
    first = workloads.server(backend, f"--status=http://127.0.0.1:{other}", listen=f":{port}")
    assert first.address
    second = workloads.server(backend, f"--status=http://127.0.0.1:{other}", listen=f"127.0.0.1:{port}")
    assert second.address
    who = re.escape(f"pid {first.pid} ({comm(first)})")
    overlap = "listens on this port at an overlapping address: each gets some of the new connections$"
    assert second.matches(f"warning: --listen 127.0.0.1:{port}: {who} {overlap}")
    assert second.matches(f"warning: --status 127.0.0.1:{other}: {who} {SHARED}$")
    with tls_connection(second.address, workloads.identity(CLIENT)) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x", "and it works"


def test_two_proxies_of_one_process_on_one_port_are_a_conflict_as_well(workloads: Workloads) -> None:
    place = f"127.0.0.1:{free_port()}"
    parts = (*client(workloads, "127.0.0.1:1", listen=place), "+", *client(workloads, "127.0.0.1:2", listen=place))
    argv = tunnel_argv("run", *parts, "--", "sh", "-c", "echo up; read line")
    process = workloads.watch(Process(argv, environ=bare_environment(), is_merged=True))
    process.wait_for("^up$")
    process.wait_for(re.escape(f"warning: --listen {place}: pid {process.pid} ({comm(process)}), this process itself {SHARED}"))


def test_who_has_a_port_to_itself_warns_of_nothing(workloads: Workloads) -> None:
    """Free ports, given ports, sockets that a service manager has opened and holds as well, and a port of another address."""
    backend = workloads.enter(Backend(echo)).target
    port = free_port()
    neighbour = workloads.server(backend, listen=f"127.0.0.2:{port}")
    assert neighbour.address
    alone = workloads.server(backend, f"--status=http://127.0.0.1:{free_port()}", listen=f"127.0.0.1:{port}")
    free = workloads.server(backend, "--status=http://127.0.0.1:0")
    line = server(workloads, backend, "--status=systemd:health", listen="systemd:web")
    sockets = [sys.executable, str(ACTIVATE), "web=127.0.0.1:0", "health=127.0.0.1:0", "--"]
    handed = workloads.watch(Proxy([*sockets, *tunnel_argv(*line)], environ=bare_environment()))
    for proxy in (alone, free, handed):
        assert proxy.address
        assert not proxy.matches("warning: --(listen|status)")
        assert proxy.stop() == 0


def test_without_proc_a_proxy_starts_and_warns_of_nothing(workloads: Workloads) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a mount namespace")
    first = workloads.server(workloads.enter(Backend(echo)).target)
    port = first.address[1]
    hidden = (program("unshare"), "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
    argv = tunnel_argv(*server(workloads, "127.0.0.1:1", listen=f"127.0.0.1:{port}"))
    second = workloads.watch(Proxy([*hidden, *argv], environ=bare_environment()))
    assert second.address == first.address
    assert not second.matches("warning: --listen")
    assert second.stop() == 0
