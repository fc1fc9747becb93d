"""`tunnel svid fetch`, `watch` and `show` as processes, against an agent that rotates, refuses and goes away."""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.processes import LIMIT, Process, bare_environment, eventually, tunnel_argv
from tests.support.workloads import SERVER, Workloads
from tunnel.config.dev_model import Entry, Issuing
from tunnel.spiffe.ids import parse_spiffe_id

SERVICE = """
import signal, sys, time
def told(number, frame):
    print("told", open(sys.argv[1] + "/svid.pem").read().count("BEGIN"), flush=True)
signal.signal(signal.SIGHUP, told)
print("serving", signal.getsignal(signal.SIGUSR1), flush=True)
while True:
    time.sleep(600)
"""


class Svid:
    """The folder of a test, and the commands that keep it or look at the agent."""

    def __init__(self, workloads: Workloads) -> None:
        self.workloads = workloads
        self.place = workloads.directory / "tls"

    def start(self, command: str, *flags: str, before: Sequence[str] = (), **more: str) -> Process:
        argv = [*before, *tunnel_argv("svid", command, *flags)]
        environ = {**bare_environment(), "SPIFFE_ENDPOINT_SOCKET": str(self.workloads.sockets[SERVER]), **more}
        return self.workloads.watch(Process(argv, environ=environ))

    def fetch(self, *flags: str) -> Process:
        return self.start("fetch", "--out", str(self.place), *flags)

    def watch(self, *flags: str) -> Process:
        return self.start("watch", "--out", str(self.place), "--json", *flags)


@pytest.fixture
def svid(workloads: Workloads) -> Svid:
    return Svid(workloads)


def fits(pem: bytes, key: bytes) -> bool:
    """Whether a key is that of the first certificate."""
    return x509.load_pem_x509_certificate(pem).public_key() == load_pem_private_key(key, None).public_key()


def events(process: Process, name: str = "") -> list[dict[str, Any]]:
    told = [json.loads(line) for line in process.lines if line.startswith('{"event"')]
    return [event for event in told if name in ("", event["event"])]


def wait_for(process: Process, event: str, count: int = 1) -> dict[str, Any]:
    process.wait_for(f'^{{"event": "{event}"', count=count)
    return events(process, event)[count - 1]


def ask(path: str, place: str) -> tuple[int, Any]:
    """Health by its Unix socket."""
    with closing(HTTPConnection("localhost", timeout=60)) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(place)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_fetch_writes_and_says_so_in_one_line(svid: Svid) -> None:
    svid.workloads.federate()
    both = svid.place / "both.pem"
    process = svid.fetch("--combined", str(both), "--key-mode", "0640")
    assert process.exit_code() == 0
    (line,) = process.complaints
    assert line.startswith(f"tunnel: wrote {SERVER}, valid until 20")
    assert line.endswith(f"to {svid.place}: svid.pem, svid_key.pem, bundle.pem, bundle.b.test.pem, {both}")
    assert process.lines == []
    assert fits((svid.place / "svid.pem").read_bytes(), (svid.place / "svid_key.pem").read_bytes())
    assert fits(both.read_bytes(), both.read_bytes())
    assert stat.S_IMODE((svid.place / "svid_key.pem").stat().st_mode) == 0o640
    svid.workloads.separate()
    quiet = svid.fetch("--quiet")
    assert (quiet.exit_code(), quiet.complaints, quiet.lines) == (0, [], [])
    assert not os.path.lexists(svid.place / "bundle.b.test.pem")


def test_fetch_asks_again_until_it_is_given_an_identity(svid: Svid) -> None:
    endpoint = svid.workloads.sockets[SERVER]
    svid.workloads.api.withdraw(endpoint)
    process = svid.fetch("--timeout", "0", "--json")
    eventually((svid.place).exists, "fetch has begun")
    svid.workloads.api.restore(endpoint)
    assert process.exit_code() == 0
    (event,) = events(process)
    assert (event["event"], event["spiffe_id"], event["trust_domains"]) == ("written", SERVER, ["a.test"])


def test_fetch_and_show_say_in_one_line_that_there_is_nothing(svid: Svid) -> None:
    svid.workloads.api.withdraw(svid.workloads.sockets[SERVER])
    for process in (svid.fetch("--timeout", "500ms"), svid.start("show", "--timeout", "500ms")):
        assert process.exit_code() == 1
        (line,) = process.complaints
        assert line.startswith(
            f"tunnel: error: no identity from {svid.workloads.sockets[SERVER]} within 0.5s (is the agent running"
        )
        assert line.endswith("Workload API issued no identity to this process (PERMISSION_DENIED: no identity issued)")
    assert list(svid.place.iterdir()) == []


def test_show_tells_all_but_the_key(svid: Svid) -> None:
    svid.workloads.federate()
    (issued,) = svid.workloads.api.issued(svid.workloads.sockets[SERVER])
    shown = svid.start("show")
    assert shown.exit_code() == 0
    assert shown.lines[0] == SERVER
    assert shown.complaints == []
    assert [line.split(":")[0] for line in shown.lines[-2:]] == ["trust domain a.test (own)", "trust domain b.test (federated)"]
    pem = svid.start("show", "--pem")
    assert pem.exit_code() == 0
    assert "\n".join(pem.lines) + "\n" == issued.chain_pem.decode()


class Reader:
    """Somebody who reads all the time, and counts what does not belong together."""

    def __init__(self, read: Callable[[], tuple[bytes, bytes]]) -> None:
        self._read = read
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seen: set[bytes] = set()
        self.faults: list[str] = []

    @contextmanager
    def reading(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                pem, key = self._read()
                if key not in self.seen and not fits(pem, key):
                    self.faults.append("key and certificate are of two updates")
                self.seen.add(key)
            except (OSError, ValueError) as error:
                self.faults.append(repr(error))


def test_through_fifty_rotations_key_and_certificate_belong_together(svid: Svid) -> None:
    both = svid.workloads.directory / "both.pem"
    process = svid.watch("--combined", str(both))
    wait_for(process, "written")

    def through_the_link() -> tuple[bytes, bytes]:
        folder = svid.place / os.readlink(svid.place / "..data")
        return (folder / "svid.pem").read_bytes(), (folder / "svid_key.pem").read_bytes()

    def combined() -> tuple[bytes, bytes]:
        pem = both.read_bytes()
        return pem, pem

    readers = Reader(through_the_link), Reader(combined)
    with readers[0].reading(), readers[1].reading():
        for count in range(2, 52):
            svid.workloads.api.rotate_svids()
            wait_for(process, "written", count)
    assert [reader.faults for reader in readers] == [[], []]
    assert [len(reader.seen) > 25 for reader in readers] == [True, True]
    serials = [event["serial"] for event in events(process, "written")]
    assert len(set(serials)) == len(serials) == 51
    assert [event["rotation"] for event in events(process, "written")] == list(range(1, 52))
    assert process.stop() == 0


def test_a_command_starts_with_the_first_files_and_is_told_of_later_ones(svid: Svid) -> None:
    svid.workloads.api.withdraw(svid.workloads.sockets[SERVER])
    process = svid.watch("--signal", "HUP", "--", sys.executable, "-c", SERVICE, str(svid.place))
    wait_for(process, "denied")
    assert events(process, "started") == []
    svid.workloads.api.restore(svid.workloads.sockets[SERVER])
    process.wait_for(r"^serving Handlers.SIG_DFL$|^serving 0$")  # what we ignore is not ignored there
    started = wait_for(process, "started")
    svid.workloads.api.rotate_svids()
    process.wait_for("^told 1$")
    assert wait_for(process, "reloaded")["message"].startswith("sent SIGHUP to python")
    process.signal(signal.SIGHUP)  # which is nothing to us
    assert process.stop() == 0
    assert wait_for(process, "ended") | {"time": ""} == {
        "event": "ended",
        "time": "",
        "message": f"{Path(sys.executable).name} was ended by signal 15",
        "pid": started["pid"],
        "exit_code": 143,
    }


def test_the_end_of_the_command_is_ours(svid: Svid) -> None:
    process = svid.watch("--", "sh", "-c", "exit 3")
    assert process.exit_code() == 3
    assert wait_for(process, "ended")["exit_code"] == 3


def test_the_command_ends_with_us_however_we_end_and_the_manager_is_told(svid: Svid) -> None:
    """Also one that a restart has started, some time later."""
    name = str(svid.workloads.directory / "notify")
    script = f"test -e {svid.place}/seen && exec sleep 3600; : > {svid.place}/seen"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(60)
        environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
        process = svid.start("watch", "--out", str(svid.place), "--json", "--restart", "--", "sh", "-c", script, **environ)
        said: list[bytes] = []
        while said.count(b"WATCHDOG=1") < 3 or not any(one.startswith(b"STATUS=keeping") for one in said):
            said.append(manager.recv(4096))
        assert said.count(b"READY=1") == 1
        assert any(one.startswith(f"STATUS=keeping | {SERVER} in {svid.place}, valid until 20".encode()) for one in said)
    child = wait_for(process, "started", 2)["pid"]
    pidfd = os.pidfd_open(child)
    try:
        process.signal(signal.SIGKILL)
        assert select.select([pidfd], [], [], 60)[0], "the command is still there"
    finally:
        os.close(pidfd)
    assert process.exit_code() == -signal.SIGKILL


def children(pid: int) -> list[str]:
    """The names of a process's children, dead ones among them."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    found = [number for thread in threads for number in (thread / "children").read_text().split()]
    return [Path(f"/proc/{number}/comm").read_text().strip() for number in found]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a PID namespace")
def test_process_1_reaps_orphans_and_knows_how_its_own_end(svid: Svid) -> None:
    script = "echo first; (sh -c 'sleep 0.1; echo $$' &); while :; do sleep 0.1; done"
    reload = "sh -c '(sleep 0.05 &); exit 3'"
    unshare = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    flags = ("--out", str(svid.place), "--json", "--reload-command", reload, "--", "sh", "-c", script)
    process = svid.start("watch", *flags, before=unshare)
    assert int(process.wait_for(r"^(\d+)$")[1]) > 1  # its parent has gone before it
    first = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    svid.workloads.api.rotate_svids()
    assert wait_for(process, "reload-failed")["message"] == "reload failed: sh ended with exit code 3"
    alone = ["sh", "signal-probe"]
    eventually(lambda: sorted(children(first)) == alone, "only the command is left, and nobody unburied")
    os.kill(first, signal.SIGTERM)
    assert wait_for(process, "ended")["exit_code"] == 143
    assert process.exit_code() == 0


def test_a_reload_command_runs_at_every_update_and_its_failure_is_no_end(svid: Svid) -> None:
    count = svid.workloads.directory / "count"
    process = svid.watch("--reload-command", f"sh -c 'echo x >> {count}; test $(wc -l < {count}) -ne 2'")
    wait_for(process, "reloaded")
    svid.workloads.api.rotate_svids()
    assert wait_for(process, "reload-failed")["message"] == "reload failed: sh ended with exit code 1"
    svid.workloads.api.rotate_svids()
    wait_for(process, "reloaded", 2)
    assert process.stop() == 0


def test_a_pid_file_that_comes_later_is_found(svid: Svid) -> None:
    pid_file = svid.workloads.directory / "service.pid"
    process = svid.watch("--signal", "HUP", "--pid-file", str(pid_file))
    wait_for(process, "reload-failed")
    service = svid.workloads.watch(Process([sys.executable, "-c", SERVICE, str(svid.place)]))
    service.wait_for("^serving")
    pid_file.write_text(f"{service.pid}\n")
    service.wait_for("^told 1$")
    assert wait_for(process, "reloaded")["message"] == f"sent SIGHUP to process {service.pid}"


def test_a_process_without_a_handler_is_not_ended_and_is_told_when_it_has_one(svid: Svid) -> None:
    go, pid_file = svid.workloads.directory / "go", svid.workloads.directory / "service.pid"
    awaiting = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    service = svid.workloads.watch(Process([sys.executable, "-c", awaiting + SERVICE, str(svid.place)]))
    pid_file.write_text(f"{service.pid}\n")
    os.utime(pid_file, (1, 1))  # written before the clock was set
    process = svid.watch("--signal", "HUP", "--pid-file", str(pid_file))
    assert wait_for(process, "reload-failed")["message"] == (
        f"reload failed: process {service.pid} of PID file {pid_file} would be ended by SIGHUP, "
        "which it neither catches, blocks nor ignores; retrying for a minute"
    )
    go.touch()
    service.wait_for("^told 1$")
    assert wait_for(process, "reloaded")["message"] == f"sent SIGHUP to process {service.pid}"
    assert process.stop() == 0


def test_a_disk_that_was_full_is_written_when_it_has_room(svid: Svid) -> None:
    place = str(svid.workloads.directory / "health.sock")
    process = svid.watch("--health", f"unix:{place}")
    first = wait_for(process, "written")
    before = (svid.place / "svid.pem").read_bytes()
    _soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (10, hard))
    svid.workloads.api.rotate_svids()
    failed = wait_for(process, "write-failed")
    assert failed["message"] == f"cannot write svid.pem in {svid.place}: file too large; keeping the previous files, retrying"
    assert (svid.place / "svid.pem").read_bytes() == before
    status, body = ask("/ready", place)
    assert (status, body["serial"], bool(body["write_error"])) == (200, first["serial"], True)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    wait_for(process, "written", 2)
    assert ask("/ready", place)[1]["write_error"] == ""


def test_health_outlives_the_agent_until_what_is_on_the_disk_expires(tmp_path: Path) -> None:
    with closing(Workloads(tmp_path, issuing=Issuing(ttl=timedelta(seconds=10)))) as workloads:
        svid, place = Svid(workloads), str(tmp_path / "health.sock")
        process = svid.watch("--health", f"unix:{place}")
        written = wait_for(process, "written")
        workloads.api.stop()
        wait_for(process, "unavailable")
        status, body = ask("/live", place)
        assert (status, body["ready"], body["trouble"].split("(")[0]) == (200, True, "Workload API unavailable ")
        assert wait_for(process, "expired")["serial"] == written["serial"]
        assert (ask("/live", place)[0], ask("/ready", place)[0]) == (503, 503)
        assert fits((svid.place / "svid.pem").read_bytes(), (svid.place / "svid_key.pem").read_bytes())
        workloads.api.start()

        def is_renewed() -> bool:  # however long the client waits, it then finds a fresh one
            workloads.api.rotate_svids()
            time.sleep(0.2)
            return len(events(process, "written")) > 1

        eventually(is_renewed, "a fresh identity is written")
        assert (ask("/live", place)[0], ask("/ready", place)[0]) == (200, 200)
        assert process.stop() == 0


def test_an_update_that_is_not_ours_is_no_rotation_and_a_folder_has_one_writer(svid: Svid) -> None:
    process = svid.watch()
    wait_for(process, "written")
    second = svid.fetch()
    assert second.exit_code() == 1
    assert second.complaints == [
        f"tunnel: error: directory {svid.place} is locked by another process: expected one writer for each --out directory"
    ]
    svid.workloads.api.withdraw(svid.workloads.sockets[SERVER])
    assert "keeping identity spiffe://a.test/server for now" in wait_for(process, "denied")["message"]
    svid.workloads.api.restore(svid.workloads.sockets[SERVER])
    assert wait_for(process, "update")["message"] == "Workload API connection recovered"
    svid.workloads.api.register(svid.workloads.sockets[SERVER], Entry(parse_spiffe_id("spiffe://a.test/another")))
    assert wait_for(process, "update", 2)["message"].startswith("warning: 2 SVIDs offered and none selected")
    svid.workloads.api.rotate_svids()
    assert wait_for(process, "written", 2)["rotation"] == 2
    assert process.stop() == 0
    assert process.complaints == []


# -- the path leads elsewhere


class Mounts:
    """A process in a mount namespace of its own, in which file systems are mounted."""

    UNSHARE = ("unshare", "--mount", "--propagation", "private")

    def __init__(self, process: Process) -> None:
        self._process = process

    def mount(self, *arguments: str) -> None:
        enter = ("nsenter", f"--target={self._process.pid}", "--mount")
        subprocess.run([*enter, "mount", *arguments], check=True, capture_output=True, timeout=LIMIT)

    def see(self, path: Path) -> Path:
        """The path as the process has it."""
        return Path(f"/proc/{self._process.pid}/root{path}")


@cache
def why_no_mounts() -> str:
    tried = subprocess.run([*Mounts.UNSHARE, "true"], capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode else ""


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    """The process sees what happens meanwhile as one change."""
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)


def move_aside(place: Path) -> None:
    place.rename(place.with_name("aside"))


def recreate(place: Path) -> None:
    move_aside(place)
    place.mkdir()


def link_elsewhere(place: Path) -> None:
    place.with_name("other").mkdir()
    place.symlink_to("other")


def point_elsewhere(place: Path) -> None:
    move_aside(place)
    link_elsewhere(place)


def has_newest(svid: Svid, place: Path) -> bool:
    (issued,) = svid.workloads.api.issued(svid.workloads.sockets[SERVER])
    try:
        return (place / "svid.pem").read_bytes() == issued.chain_pem and fits(
            issued.chain_pem, (place / "svid_key.pem").read_bytes()
        )
    except (OSError, ValueError):
        return False


@pytest.mark.parametrize("move", [move_aside, recreate, point_elsewhere])
def test_without_a_rotation_the_files_are_written_where_the_path_leads_and_it_is_told(
    svid: Svid, move: Callable[[Path], None]
) -> None:
    process = svid.watch("--reload-command", "true")
    wait_for(process, "reloaded")
    with stopped(process):
        move(svid.place)
    words = "is missing" if move is move_aside else "was replaced by another directory"
    assert wait_for(process, "files-changed")["message"] == f"{svid.place} {words}: written again"
    assert wait_for(process, "written", 2)["rotation"] == 1
    assert has_newest(svid, svid.place)
    wait_for(process, "reloaded", 2)
    svid.workloads.api.rotate_svids()
    assert wait_for(process, "written", 3)["rotation"] == 2
    assert has_newest(svid, svid.place)
    assert process.stop() == 0


@pytest.mark.parametrize("after", [None, Path.mkdir, link_elsewhere])
def test_while_the_files_are_gone_it_is_not_ready(svid: Svid, after: Callable[[Path], object] | None) -> None:
    health = str(svid.workloads.directory / "health.sock")
    process = svid.watch("--health", f"unix:{health}")
    wait_for(process, "written")
    assert ask("/ready", health)[0] == 200
    with stopped(process):
        move_aside(svid.place)
        svid.place.write_text("in the way")
    status, body = ask("/ready", health)
    assert (status, body["ready"], body["file_error"]) == (503, False, f"{svid.place} is not a directory")
    assert ask("/live", health)[0] == 200
    failed = f"cannot use directory {svid.place}: not a directory; the files are not in place, retrying"
    assert wait_for(process, "write-failed")["message"] == failed
    svid.workloads.api.rotate_svids()
    assert ask("/ready", health)[0] == 503
    with stopped(process):
        svid.place.unlink()
        if after is not None:
            after(svid.place)
    wait_for(process, "files-changed")
    eventually(lambda: has_newest(svid, svid.place), "the newest files are written")
    eventually(lambda: ask("/ready", health)[0] == 200, "ready again")
    assert len(events(process, "write-failed")) == 1
    assert process.stop() == 0


def test_a_file_that_somebody_removes_is_written_again(svid: Svid) -> None:
    process = svid.watch()
    wait_for(process, "written")
    (svid.place / "svid.pem").unlink()
    assert wait_for(process, "files-changed")["message"] == f"{svid.place}/svid.pem is missing: written again"
    assert has_newest(svid, svid.place)
    (svid.place / "..data").unlink()
    assert wait_for(process, "files-changed", 2)["message"] == f"{svid.place}/..data is missing: written again"
    assert has_newest(svid, svid.place)
    assert process.stop() == 0


def test_a_relative_path_means_the_same_when_the_working_directory_was_replaced(svid: Svid) -> None:
    here = svid.workloads.directory / "here"
    here.mkdir()
    environ = {**bare_environment(), "SPIFFE_ENDPOINT_SOCKET": str(svid.workloads.sockets[SERVER])}
    process = svid.workloads.watch(Process(tunnel_argv("svid", "watch", "--out=tls", "--json"), environ=environ, cwd=here))
    wait_for(process, "written")
    with stopped(process):
        shutil.rmtree(here)
        here.mkdir()
    assert wait_for(process, "files-changed")["message"] == "tls is missing: written again"
    assert has_newest(svid, here / "tls")
    assert process.stop() == 0


def test_a_file_system_mounted_over_the_directory_gets_the_files_when_it_can_be_written(svid: Svid) -> None:
    if why := why_no_mounts():
        pytest.skip(f"no mount namespace can be made here: {why}")
    health = str(svid.workloads.directory / "health.sock")
    flags = ("--out", str(svid.place), "--json", "--health", f"unix:{health}")
    process = svid.start("watch", *flags, before=Mounts.UNSHARE)
    mounts = Mounts(process)
    wait_for(process, "written")
    mounts.mount("-t", "tmpfs", "-o", "ro", "tmpfs", str(svid.place))
    assert (ask("/ready", health)[0], ask("/ready", health)[1]["file_error"]) == (
        503,
        f"{svid.place} was replaced by another directory",
    )
    assert "read-only file system; the files are not in place" in wait_for(process, "write-failed")["message"]
    mounts.mount("-o", "remount,rw", str(svid.place))
    wait_for(process, "files-changed")
    assert ask("/ready", health)[0] == 200
    assert has_newest(svid, mounts.see(svid.place))
    other = svid.workloads.directory / "other"
    other.mkdir()
    mounts.mount("--bind", str(other), str(svid.place))
    wait_for(process, "files-changed", 2)
    svid.workloads.api.rotate_svids()
    eventually(lambda: has_newest(svid, other), "the newest files are in the directory that is mounted now")
    assert process.stop() == 0


def test_a_file_system_that_became_read_only_keeps_the_files_and_is_written_later(svid: Svid) -> None:
    if why := why_no_mounts():
        pytest.skip(f"no mount namespace can be made here: {why}")
    svid.place.mkdir()
    health = str(svid.workloads.directory / "health.sock")
    with_tmpfs = (*Mounts.UNSHARE, "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(svid.place))
    flags = ("--out", str(svid.place), "--json", "--health", f"unix:{health}")
    process = svid.start("watch", *flags, before=with_tmpfs)
    mounts = Mounts(process)
    wait_for(process, "written")
    mounts.mount("-o", "remount,ro", str(svid.place))
    svid.workloads.api.rotate_svids()
    assert wait_for(process, "write-failed")["message"] == (
        f"cannot replace the files in {svid.place}: read-only file system; keeping the previous files, retrying"
    )
    assert ask("/ready", health)[0] == 200
    mounts.mount("-o", "remount,rw", str(svid.place))
    wait_for(process, "written", 2)
    assert has_newest(svid, mounts.see(svid.place))
    assert events(process, "files-changed") == []
    assert process.stop() == 0


def has_open(pid: int, path: Path) -> bool:
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(descriptor))
    return str(path) in links


def test_fetch_writes_to_the_path_also_when_the_directory_was_replaced_while_it_waited(svid: Svid) -> None:
    endpoint = svid.workloads.sockets[SERVER]
    svid.workloads.api.withdraw(endpoint)
    process = svid.fetch("--timeout", "0", "--json")
    eventually(lambda: has_open(process.pid, svid.place), "fetch has opened the directory")  # it exists a moment earlier
    with stopped(process):
        recreate(svid.place)
    svid.workloads.api.restore(endpoint)
    assert process.exit_code() == 0
    assert wait_for(process, "notice")["message"] == f"{svid.place} was replaced by another directory: opened again"
    assert has_newest(svid, svid.place)
    assert list(svid.place.with_name("aside").iterdir()) == []
