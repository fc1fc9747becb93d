"""The systemd units: without a line that systemd passes over, well shut in, and they run so, in a real systemd."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.connection_load import ConnectionLoad
from tests.support.container_image import ROOT, Image
from tests.support.plain_backends import Backend, echo, receive_all
from tests.support.processes import LIMIT, WORKERS, eventually, with_workers
from tests.support.replacement_page import replacement_file
from tests.support.requirements import program
from tests.support.systemd_manager import SYSTEMD, Manager
from tunnel.config.dev_model import Entry
from tunnel.config.file.loader import load_config
from tunnel.devapi.api import DevWorkloadApi
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id

UNITS = ROOT / "deploy/systemd"
COUNTING = ROOT / "tests/support/scripts/signal_counter.py"
SERVICES = ["tunnel-server.service", "tunnel@.service", "tunnel.service"]
WORST = 15  # of systemd's score, in tenths; what it still blames is that a proxy reaches the network
_ARGS = """client
--use-workload-api-addr=unix:///run/spire/client.sock
--listen=127.0.0.1:6380
--target=127.0.0.1:8443
--verify-id=spiffe://example.org/cache
--status=unix:/run/tunnel-web/status
"""
_EXEC = """[Service]
Type=notify
ExecStart=/opt/tunnel/bin/tunnel exec --use-workload-api-addr=unix:///run/spire/client.sock \\
    --target=127.0.0.1:8443 --verify-id=spiffe://example.org/cache -- \\
    sh -c 'systemd-notify --ready --status=up; trap "exit 0" TERM; while :; do sleep 0.1; done'
StandardOutput=append:/run/log
StandardError=inherit
"""
_SECOND = """
[identity.web]
workload-api = "unix:///run/spire/client.sock"

[[client]]
listen = "127.0.0.1:6381"
target = "127.0.0.1:8443"
identity = "web"
access = [{ allow = "spiffe://example.org/cache" }]
"""
# Whoever writes such a unit has not thought of KillMode=.
_STOPPED = """[Service]
Type=exec
ExecStart=/opt/tunnel/bin/tunnel exec --use-workload-api-addr=unix:///run/spire/client.sock \\
    --target=127.0.0.1:1 --verify-id=spiffe://example.org/cache -- /usr/bin/python3 /etc/tunnel/signal_counter.py
TimeoutStopSec=5
StandardOutput=append:/run/stopped
StandardError=inherit
"""


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [program("systemd-analyze"), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, "SYSTEMD_PAGER": ""})


def replaced(text: str, old: str, new: str) -> str:
    """The text with a change that must be one."""
    assert old in text
    return text.replace(old, new)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A copy whose program is there, and whose template has a name."""
    copied = tmp_path / "units"
    copied.mkdir()
    for path in UNITS.iterdir():
        text = path.read_text()
        if path.suffix == ".service":
            text = replaced(text, "/opt/tunnel/bin/tunnel", "/bin/true")
        if "@" in path.name:
            text = replaced(text, "AssertPathExists=", "#")
        (copied / path.name.replace("@.", "@web.")).write_text(text)
    return copied


def test_systemd_understands_every_line(units: Path) -> None:
    done = analyze("verify", *(str(path) for path in sorted(units.iterdir())))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")  # it passes over what it does not know, and ends with 0


def test_a_line_that_systemd_passes_over_would_be_seen(units: Path) -> None:
    with (units / "tunnel-server.service").open("a") as unit:
        unit.write("[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in analyze("verify", str(units / "tunnel-server.service")).stderr


@pytest.mark.parametrize("name", ["tunnel-server.service", "tunnel@web.service", "tunnel.service"])
def test_the_units_are_well_shut_in(units: Path, name: str) -> None:
    done = analyze("security", "--offline=true", f"--threshold={WORST}", "--no-pager", str(units / name))
    assert done.returncode == 0, done.stdout


def test_all_units_are_shut_in_alike() -> None:
    server, other, every = ((UNITS / name).read_text().partition("\n# A user of its own")[2] for name in SERVICES)
    assert server
    assert server.replace("tunnel-server", "tunnel-%i") == other
    assert server.replace("tunnel-server", "tunnel") == every


def example() -> str:
    """The configuration file in the comment of `tunnel.service`."""
    comment = (UNITS / "tunnel.service").read_text().partition("[Unit]")[0]
    return "".join(f"{line.removeprefix('#   ')}\n" for line in comment.splitlines() if line.startswith("#   "))


def test_the_configuration_in_a_unit_is_valid(tmp_path: Path) -> None:
    (tmp_path / "tunnel.toml").write_text(example())
    (listener,) = load_config([tmp_path]).listeners
    assert str(listener.listen) == "0.0.0.0:8443"


@pytest.fixture
def manager(image: Image, tmp_path: Path) -> Iterator[Manager]:
    """Has the units as they are, the program of the image, and an agent that knows a server and a client."""
    if not SYSTEMD.exists() or not os.access("/usr/bin/python3.11", os.X_OK):
        pytest.skip("the image's program needs Debian's Python 3.11 here, and its units a systemd to run them")
    tmp_path.chmod(0o755)
    shutil.copytree(UNITS, tmp_path / "units")
    for name, lines in (("tunnel-server", "WatchdogSec=3\nRestartSec=0\n"), ("tunnel@", ""), ("tunnel", "")):
        extra = tmp_path / "units" / f"{name}.service.d"
        extra.mkdir()
        (extra / "test.conf").write_text(f"[Service]\n{lines}StandardOutput=append:/run/log\nStandardError=inherit\n")
    if WORKERS != "1":
        unit = tmp_path / "units/tunnel-server.service"
        unit.write_text(replaced(unit.read_text(), "tunnel server ", f"tunnel server --workers={WORKERS} "))
    (tmp_path / "units/exec.service").write_text(_EXEC)
    (tmp_path / "etc/tunnel").mkdir(parents=True)
    (tmp_path / "etc/tunnel/web.args").write_text("\n".join(with_workers(_ARGS.split())))
    (tmp_path / "etc/tunnel/tunnel.toml").write_text(example())
    (tmp_path / "units" / "stopped.service").write_text(_STOPPED)
    shutil.copy(COUNTING, tmp_path / "etc/tunnel")
    (tmp_path / "sockets").mkdir()
    (tmp_path / "tunnel").symlink_to(image.files / "opt/tunnel")
    workloads = {"agent.sock": "spiffe://example.org/cache", "client.sock": "spiffe://example.org/web"}
    entries = {
        WorkloadEndpoint(path=str(tmp_path / "sockets" / name)): [Entry(parse_spiffe_id(who))]
        for name, who in workloads.items()
    }
    with DevWorkloadApi(entries, socket_mode=0o666), ExitStack() as things:
        manager = Manager(tmp_path)
        things.callback(manager.close)
        yield manager


def exchange(manager: Manager, port: int = 6380) -> bytes:
    """What comes back of some bytes that are given to the client's proxy."""
    connection = manager.in_network(lambda: socket.create_connection(("127.0.0.1", port), LIMIT))
    with connection:
        connection.settimeout(LIMIT)
        connection.sendall(b"through both")
        connection.shutdown(socket.SHUT_WR)
        return receive_all(connection)


def test_the_units_carry_traffic_as_they_are(manager: Manager) -> None:
    with manager.in_network(lambda: Backend(echo, port=6379)):
        manager.ask("start", "tunnel-server.socket")
        manager.ask("start", "tunnel@web.service")  # Type=notify: comes back when it is ready
        assert exchange(manager) == b"through both"  # the first connection starts the server
        assert manager.property("tunnel-server.service", "ActiveState") == "active"
        assert manager.property("tunnel-server.service", "StatusText").startswith("listening | server proxying systemd:tunnel")
        manager.ask("reload", "tunnel-server.service", "tunnel@web.service")
        first = manager.property("tunnel-server.service", "MainPID")
        assert is_confined(manager, int(first))
        hang(manager, int(first))
        eventually(
            lambda: manager.property("tunnel-server.service", "MainPID") not in (first, "0"), "the watchdog starts another"
        )
        assert exchange(manager) == b"through both"
        manager.ask("stop", "tunnel@web.service", "tunnel-server.service", "tunnel-server.socket")
    assert manager.property("tunnel@web.service", "Result") == "success"


def is_served(manager: Manager, port: int) -> bool:
    try:
        return exchange(manager, port) == b"through both"
    except OSError:
        return False


def test_the_unit_of_a_configuration_file_reloads_it_unless_it_has_mistakes(manager: Manager, tmp_path: Path) -> None:
    file = tmp_path / "etc/tunnel/tunnel.toml"
    with manager.in_network(lambda: Backend(echo, port=6379)):
        manager.ask("start", "tunnel.service", "tunnel@web.service")
        assert exchange(manager) == b"through both"
        first = manager.property("tunnel.service", "MainPID")
        assert is_confined(manager, int(first))
        file.write_text(f"{example()}{_SECOND}")  # in place: a file system over it shows no other one
        manager.ask("reload", "tunnel.service")
        eventually(lambda: is_served(manager, 6381), "the new listener serves")
        file.write_text(f"{example()}targett = 1\n")
        assert manager.is_refused("reload", "tunnel.service")
        assert (exchange(manager), exchange(manager, 6381)) == (b"through both",) * 2
        assert manager.property("tunnel.service", "MainPID") == first
        manager.ask("stop", "tunnel@web.service", "tunnel.service")
    assert manager.property("tunnel.service", "Result") == "success"


def test_the_socket_of_a_configuration_file_stays_open_in_a_restart(manager: Manager, tmp_path: Path) -> None:
    file = tmp_path / "etc/tunnel/tunnel.toml"
    file.write_text(replaced(example(), '"0.0.0.0:8443"', '"systemd:tunnel"'))
    with manager.in_network(lambda: Backend(echo, port=6379)):
        manager.ask("start", "tunnel.socket", "tunnel@web.service")
        assert exchange(manager) == b"through both"  # the first connection starts the service
        manager.ask("stop", "tunnel.service")
        assert exchange(manager) == b"through both"
        manager.ask("reload", "tunnel.service")
        assert exchange(manager) == b"through both"
        manager.ask("stop", "tunnel@web.service", "tunnel.service", "tunnel.socket")
    assert manager.property("tunnel.service", "Result") == "success"


def test_two_instances_with_one_socket_replace_each_other(manager: Manager, tmp_path: Path) -> None:
    units = tmp_path / "units"
    for suffix in ("", ".d"):
        copy = shutil.copytree if suffix else shutil.copy
        copy(units / f"tunnel-server.service{suffix}", units / f"tunnel-server@.service{suffix}")
    for name in ("tunnel-server@.service.d/replace.conf", "tunnel-server.socket.d/replace.conf"):
        (units / name).parent.mkdir(exist_ok=True)
        (units / name).write_text(replacement_file(name))
    manager.ask("daemon-reload")

    def check() -> None:
        assert exchange(manager) == b"through both"

    with manager.in_network(lambda: Backend(echo, port=6379)):
        manager.ask("start", "tunnel-server.socket", "tunnel-server@blue", "tunnel@web.service")
        with ConnectionLoad(check, rate=50) as load:
            for old, new in (("blue", "green"), ("green", "blue"), ("blue", "green")):
                manager.ask("start", f"tunnel-server@{new}")
                manager.ask("stop", f"tunnel-server@{old}")
                assert manager.property(f"tunnel-server@{old}.service", "Result") == "success"
                load.wait_for_more(50)
        assert not load.failures
        states = [manager.property(f"tunnel-server@{name}.service", "ActiveState") for name in ("blue", "green")]
        assert states == ["inactive", "active"], "a connection starts no second instance"
        manager.ask("stop", "tunnel@web.service", "tunnel-server@green", "tunnel-server.socket")


def test_a_command_of_exec_makes_its_unit_ready(manager: Manager) -> None:
    """By a notification that systemd takes from the main process only, which is not the command."""
    manager.ask("start", "exec.service")  # Type=notify: comes back when the command has said that it is ready
    assert manager.property("exec.service", "NotifyAccess") == "main"
    assert manager.property("exec.service", "StatusText") == "up"
    main = outer_pid(manager, int(manager.property("exec.service", "MainPID")))
    assert Path(f"/proc/{main}/comm").read_text() == "tunnel\n"
    manager.ask("stop", "exec.service")
    assert manager.property("exec.service", "Result") == "success"


def test_a_stop_by_the_service_manager_is_one_signal_for_a_command(manager: Manager) -> None:
    """It signals every process of the unit, and a second time after its time is over: by SIGKILL."""
    said = Path(f"/proc/{manager.first_pid}/root/run/stopped")
    manager.ask("start", "stopped.service")
    eventually(lambda: "up" in said.read_text(), "the command runs")
    manager.ask("stop", "stopped.service")
    assert said.read_text().count("got ") == said.read_text().count("got 15\n") == 1


@pytest.mark.parametrize("name", SERVICES)
def test_a_stop_of_our_units_is_for_the_main_process(name: str) -> None:
    assert "\nKillMode=mixed\n" in (UNITS / name).read_text()


def outer_pid(manager: Manager, pid: int) -> int:
    """The process that has this number in there, as this machine numbers it."""
    for status in Path("/proc").glob("[0-9]*/status"):
        found = re.search(rf"^NSpid:\t(\d+)\t{pid}$", status.read_text(), re.MULTILINE)
        if found and os.readlink(f"/proc/{found[1]}/ns/pid") == os.readlink(f"/proc/{manager.first_pid}/ns/pid"):
            return int(found[1])
    raise AssertionError(f"no process {pid}")


def is_confined(manager: Manager, pid: int) -> bool:
    """Whether the kernel holds it: no user of ours, no right, no way to get one, and a filter for its calls."""
    lines = Path(f"/proc/{outer_pid(manager, pid)}/status").read_text().splitlines()
    facts = dict(line.split(":\t", 1) for line in lines)
    return (facts["Uid"].split()[0] != "0", facts["CapEff"], facts["NoNewPrivs"], facts["Seccomp"]) == (
        True,
        "0" * 16,
        "1",
        "2",
    )


def hang(manager: Manager, pid: int) -> None:
    os.kill(outer_pid(manager, pid), signal.SIGSTOP)
