"""A process that holds a key writes no core dump, and its commands are given the limit that it was given."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import Backend, echo
from tests.support.processes import LIMIT, WORKERS, Process, Proxy, bare_environment, eventually, tunnel_argv
from tests.support.workloads import CLIENT, Workloads

ANY = "--listen=127.0.0.1:0"
_GENEROUS = 1 << 30
_LOOK = "grep 'core file' /proc/self/limits"
_ROW = re.compile(r"Max core file size +(\S+) +(\S+)")


@pytest.fixture
def generous() -> Iterator[str]:
    """A soft limit of core dumps for what the test starts, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    if before[1] != resource.RLIM_INFINITY and os.geteuid() != 0:
        pytest.skip("the hard limit of core dumps cannot be raised")
    resource.setrlimit(resource.RLIMIT_CORE, (_GENEROUS, resource.RLIM_INFINITY))
    yield str(_GENEROUS)
    resource.setrlimit(resource.RLIMIT_CORE, before)


def core_limit_of(pid: int) -> str:
    """The soft limit in bytes, as the kernel says it."""
    found = _ROW.search(Path(f"/proc/{pid}/limits").read_text())
    assert found
    return found[1]


def leaves_core(argv: list[str], folder: Path, is_up: str = "") -> bool:
    """Whether the kernel writes a core dump of this process when it aborts; it says `is_up` first."""
    process = subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if is_up in line:
                break
        os.kill(process.pid, signal.SIGABRT)
        _, status = os.waitpid(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == -signal.SIGABRT
    return os.WCOREDUMP(status)


@pytest.mark.usefixtures("generous")
def test_a_proxy_that_aborts_leaves_no_core_dump(file_identities: FileIdentities, tmp_path: Path) -> None:
    if not leaves_core([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], tmp_path, "up"):
        pytest.skip("this machine writes no core dumps")
    files = file_identities.named(file_identities.server_files)  # Landlock would deny the core dump too
    argv = tunnel_argv("server", ANY, "--target=127.0.0.1:1", *files, "--allow-all", "--disable-landlock")
    assert not leaves_core(argv, tmp_path, "listening for connections on")


@pytest.mark.usefixtures("generous")
def test_every_process_with_a_key_has_a_limit_of_0(
    workloads: Workloads, file_identities: FileIdentities, tmp_path: Path
) -> None:
    backend = workloads.enter(Backend(echo))
    watch = Process(
        tunnel_argv("svid", "watch", f"--out={tmp_path / 'svid'}", f"--use-workload-api-addr={workloads.sockets[CLIENT]}"),
        environ=bare_environment(),
    )
    workloads.watch(watch)
    for process in (workloads.server(backend.target), workloads.client("127.0.0.1:1"), file_identities.serve(backend.target)):
        assert process.address
        assert core_limit_of(process.pid) == "0"
    eventually(lambda: (tmp_path / "svid").exists(), "the files are written")
    assert core_limit_of(watch.pid) == "0"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is wanted")
def test_no_process_of_the_same_user_sees_into_a_proxy(file_identities: FileIdentities) -> None:
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    nobody = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
    # By a shell: setpriv(1) itself still has the capabilities of root when it starts a program.
    start = [*nobody, "sh", "-c", 'exec "$@"', "sh", *tunnel_argv("--version")]
    readable = subprocess.run(start, capture_output=True, timeout=LIMIT, check=False)
    if readable.returncode:
        pytest.skip("another user cannot run the program from here")
    proxy = Proxy(
        [*nobody, *tunnel_argv("client", ANY, "--target=localhost:1", "--disable-authentication")], environ=bare_environment()
    )
    file_identities.watch(proxy)
    assert proxy.address
    workers = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
    assert len(workers) == (0 if WORKERS == "1" else int(WORKERS))
    for pid in (proxy.pid, *workers):
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0
        spy = subprocess.run([*nobody, "cat", f"/proc/{pid}/environ"], capture_output=True, timeout=LIMIT, check=False)
        assert spy.returncode != 0
        assert spy.stdout == b""


@pytest.mark.parametrize("is_spawned", [False, True], ids=["exec", "svid watch"])
def test_a_command_is_given_the_limit_that_we_were_given(
    workloads: Workloads, tmp_path: Path, generous: str, is_spawned: bool
) -> None:
    api = f"--use-workload-api-addr={workloads.sockets[CLIENT]}"
    if is_spawned:
        words = ["svid", "watch", f"--out={tmp_path / 'svid'}", api]
    else:
        words = ["exec", "--target=127.0.0.1:1", api, "--verify-id=spiffe://a.test/x"]
    seen = tmp_path / "seen"
    done = Process(tunnel_argv(*words, "--", "sh", "-c", f"{_LOOK} > {seen}.new; mv {seen}.new {seen}; exec sleep 600"))
    workloads.watch(done)
    eventually(seen.exists, "the command has looked")
    assert _ROW.findall(seen.read_text()) == [(generous, "unlimited")]


def test_a_reload_command_is_given_the_limit_that_we_were_given(workloads: Workloads, tmp_path: Path, generous: str) -> None:
    seen = tmp_path / "seen"
    reload = f'sh -c "{_LOOK} > {seen}.new; mv {seen}.new {seen}"'
    words = ["svid", "watch", f"--out={tmp_path / 'svid'}", f"--use-workload-api-addr={workloads.sockets[CLIENT]}"]
    watch = Process(tunnel_argv(*words, f"--reload-command={reload}"), environ=bare_environment())
    workloads.watch(watch)
    eventually(lambda: (tmp_path / "svid").exists(), "the files are written")
    workloads.api.rotate_svids()
    eventually(seen.exists, "the reload command has run")
    assert _ROW.findall(seen.read_text()) == [(generous, "unlimited")]
    eventually(lambda: core_limit_of(watch.pid) == "0", "the limit is ours again, as soon as the command has started")
