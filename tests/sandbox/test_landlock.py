"""Landlock: the rights for each ABI version, with a fake kernel; and what the real kernel denies, in processes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunnel.sandbox.landlock import Linux, apply_landlock, explain_denial, restrict
from tunnel.sandbox.rules import Needs, Ruleset

ROOT = Path(__file__).parents[2]
GOING = "setting up landlock rules to limit process privileges"
LIMITED = "note: kernel does not support landlock net rules, sandboxing will be limited"
READ = 0b1101
DIRECTORY_ONLY = {1: 0x1FF0, 2: 0x3FF0, 3: 0x3FF0, 4: 0x3FF0, 5: 0x3FF0, 6: 0x3FF0}
ALL = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF, 6: 0xFFFF, 9: 0xFFFF}


class FakeKernel:
    """Records the calls."""

    def __init__(self, version: int) -> None:
        self._version = version
        self.fails_at = ""
        self.threads = 1
        self.created: tuple[int, int, int] | None = None
        self.paths: dict[str, int] = {}
        self.ports: list[tuple[int, int]] = []
        self.is_restricted = False

    def _maybe_fail(self, step: str) -> None:
        if step == self.fails_at:
            raise OSError(errno.EPERM, "Operation not permitted")

    def thread_count(self) -> int:
        return self.threads

    def version(self) -> int:
        self._maybe_fail("version")
        if not self._version:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return self._version

    def create_ruleset(self, fs_rights: int, net_rights: int, scopes: int) -> int:
        self._maybe_fail("create_ruleset")
        self.created = (fs_rights, net_rights, scopes)
        return os.open(os.devnull, os.O_RDONLY)

    def allow_path(self, ruleset: int, rights: int, path: int) -> None:
        self._maybe_fail("allow_path")
        self.paths[os.readlink(f"/proc/self/fd/{path}")] = rights

    def allow_port(self, ruleset: int, rights: int, port: int) -> None:
        self._maybe_fail("allow_port")
        self.ports.append((rights, port))

    def restrict(self, ruleset: int) -> None:
        self._maybe_fail("restrict")
        self.is_restricted = True


@pytest.mark.parametrize("version", ALL)
def test_only_rights_of_the_kernels_abi_version_are_used(version: int, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "w").mkdir()
    (tmp_path / "file").touch()
    kernel = FakeKernel(version)
    (tmp_path / "s").mkdir()
    readable, places = (str(tmp_path / "r"), str(tmp_path / "file"), "/nowhere"), (str(tmp_path / "s"),)
    rules = Ruleset(readable, (str(tmp_path / "w"),), places, (0, 80), (53,), False, False)
    assert restrict(rules, kernel) == version
    net = 0b11 if version >= 4 else 0
    assert kernel.created == (ALL[version], net, 0b11 if version >= 6 else 0)
    asked = {str(tmp_path / "r"): READ, str(tmp_path / "w"): ALL[version], str(tmp_path / "file"): 0b101}
    asked[str(tmp_path / "s")] = 0b1000110000
    assert kernel.paths == asked | {str(ROOT): 0b1000}, "of the checkout names only"
    assert kernel.ports == ([(1, 0), (1, 80), (2, 53)] if net else [])
    assert kernel.is_restricted


@pytest.mark.parametrize(("version", "net"), [(3, 0), (4, 0b01)])
def test_without_known_ports_only_binding_is_restricted(version: int, net: int) -> None:
    kernel = FakeKernel(version)
    restrict(Ruleset((), (), (), (80,), None, False, False), kernel)
    assert kernel.created[1] == net
    assert kernel.ports == ([(1, 80)] if net else [])


def test_a_reload_may_read_files_and_open_sockets_everywhere_and_use_every_port() -> None:
    """But not write to other files, create them, or execute."""
    kernel = FakeKernel(6)
    restrict(Ruleset((), (), (), (80,), (53,), False, False, is_open=True), kernel)
    assert kernel.created == (ALL[6], 0, 0b11)
    assert kernel.paths["/"] == 0b1000101100, "read files and directories, remove files, make sockets"
    assert kernel.ports == []


def test_a_writable_file_gets_no_directory_rights(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kernel = FakeKernel(6)
    restrict(Ruleset((), (str(tmp_path / "file"),), (str(tmp_path / "file"),), (), (), False, False), kernel)
    assert kernel.paths[str(tmp_path / "file")] == 0b1100000000000111


@pytest.mark.parametrize(("signals", "abstract"), [(True, False), (False, True), (True, True)])
def test_scopes_that_the_configuration_needs_are_not_restricted(signals: bool, abstract: bool) -> None:
    kernel = FakeKernel(6)
    restrict(Ruleset((), (), (), (), (), signals, abstract), kernel)
    assert kernel.created == (ALL[6], 0b11, (0 if abstract else 1) | (0 if signals else 2))


@pytest.mark.parametrize(("version", "lines"), [(3, [GOING, LIMITED]), (4, [GOING]), (7, [GOING])])
def test_a_missing_kernel_feature_is_logged(version: int, lines: list[str]) -> None:
    said: list[str] = []
    apply_landlock(Needs(), {}, said.append, FakeKernel(version))
    assert said == lines


@pytest.mark.parametrize("step", ["version", "create_ruleset", "allow_path", "allow_port", "restrict"])
def test_a_failure_is_a_warning_and_leaves_no_descriptor(step: str) -> None:
    said: list[str] = []
    kernel = FakeKernel(6)
    kernel.fails_at = step
    before = len(os.listdir("/proc/self/fd"))
    apply_landlock(Needs(), {}, said.append, kernel)
    assert said == [GOING, "warning: unable to set up landlock: operation not permitted"]
    assert not kernel.is_restricted
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_kernel_without_landlock_is_a_warning() -> None:
    said: list[str] = []
    apply_landlock(Needs(), {}, said.append, FakeKernel(0))
    assert said == [GOING, "warning: unable to set up landlock: not supported by the kernel"]


def test_a_process_with_threads_is_not_restricted_partly() -> None:
    said: list[str] = []
    kernel = FakeKernel(6)
    kernel.threads = 2
    apply_landlock(Needs(), {}, said.append, kernel)
    assert said == [GOING, "warning: unable to set up landlock: 2 threads are running, only one would be restricted"]
    assert not kernel.is_restricted


def test_all_threads_are_counted() -> None:
    """In a separate process: this one may have threads of other tests."""
    script = (
        "import threading\n"
        "from tunnel.sandbox.landlock import Linux\n"
        "over = threading.Event()\n"
        "counts = [Linux().thread_count()]\n"
        "threading.Thread(target=over.wait).start()\n"
        "counts.append(Linux().thread_count())\n"
        "over.set()\n"
        "print(counts)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 2]\n"


# -- the real kernel


def missing() -> str:
    """Why Landlock is not available on this kernel, or ""."""
    try:
        version = Linux().version()
    except OSError as error:
        return f"no Landlock here: {error.strerror}"
    return "" if version >= 4 else f"Landlock's version {version} has no network rules"


PRELUDE = """
import os, socket, sys
from tunnel.net.address import TcpAddress, UnixAddress, parse_address
from tunnel.sandbox.landlock import Linux, program_paths, restrict
from tunnel.sandbox.rules import Needs, build_ruleset

def sandbox(**needs):
    assert restrict(build_ruleset(Needs(**needs), os.environ, program_paths()), Linux()) >= 4

def denied(action, *arguments):
    try:
        action(*arguments)
    except PermissionError:
        return True
    return False

HERE = sys.argv[1]
"""
real = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest.fixture
def here() -> Iterator[Path]:
    """A directory outside of every list, unless temporary files are not in /tmp."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        yield Path(path)


def run(source: str, here: Path, **environ: str) -> None:
    """Run the assertions of a source in a separate process."""
    environ = {**{k: v for k, v in os.environ.items() if "PROXY" not in k.upper()}, "PYTHONPATH": str(ROOT), **environ}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + source, str(here)], env=environ, cwd=here, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@real
def test_files_outside_cannot_be_read_written_listed_or_run(here: Path) -> None:
    (here / "secret").write_text("x")
    (here / "program").write_text("#!/bin/sh\n")
    (here / "program").chmod(0o755)
    run(
        """
os.environ["HOME"] = HERE
sandbox()
for path in (HERE + "/secret", "secret"):
    assert denied(open, path)
assert denied(open, HERE + "/new", "w")
assert denied(os.listdir, HERE) and denied(os.listdir, ".") and denied(os.listdir, "/")
assert denied(os.unlink, HERE + "/secret") and denied(os.mkdir, HERE + "/d") and denied(os.truncate, HERE + "/secret", 0)
assert denied(os.execv, HERE + "/program", ["program"])
assert denied(open, "/proc/self/root" + HERE + "/secret"), "no way around by another name"
""",
        here,
    )


@real
def test_neither_the_system_nor_other_users_files_are_reachable(here: Path) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as temporary, tempfile.NamedTemporaryFile(dir="/run") as running:
        run(
            f"""
files = ["/etc/shadow", "/etc/ssl/private", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/1/cmdline"]
files += [{temporary.name!r}, {running.name!r}]
sandbox(listens=(UnixAddress("/run/tunnel-test.sock"), UnixAddress("/tmp/tunnel-test.sock")))
for path in files:
    assert denied(open, path) or not os.path.exists(path), path
for path in ("/tmp", "/run", "/proc/sys", "/etc", "/dev"):
    assert denied(os.listdir, path) or os.geteuid() and path == "/etc", path
    assert path == "/proc/sys" or denied(open, path + "/tunnel-test", "x"), path
assert denied(open, "/proc/self/oom_score_adj", "w") and denied(open, "/proc/sys/net/core/somaxconn", "w")
from tunnel.net.listen import open_listener
open_listener(UnixAddress("/tmp/tunnel-test.sock")).close()
""",
            here,
        )


SCOPES = """
import signal, subprocess
name = "\\0tunnel-test-%d" % os.getpid()
ours = socket.socket(socket.AF_UNIX); ours.bind(name); ours.listen()
source = f"import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind({name!r} + '-other'); s.listen()"
source += "; print(1, flush=True); sys.stdin.read()"
other = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert other.stdout.readline() == b"1\\n"
"""


@real
@pytest.mark.parametrize("is_kept", [True, False])
def test_processes_outside_get_neither_signals_nor_connections_by_abstract_names(here: Path, is_kept: bool) -> None:
    if Linux().version() < 6:
        pytest.skip("no scopes before version 6")
    needs = "" if is_kept else 'dials=(UnixAddress("@x"),), has_command=True'
    run(
        SCOPES
        + f"""
sandbox({needs})
assert denied(socket.socket(socket.AF_UNIX).connect, name + "-other") is {is_kept}
assert denied(other.send_signal, signal.SIGCONT) is {is_kept}
os.kill(os.getpid(), signal.SIGCONT)
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
child.kill()
assert child.wait(60) == -9
other.stdin.close(); other.stdout.close()
other.wait(60)
""",
        here,
    )


@real
def test_a_denied_reload_names_landlock_and_the_path(here: Path) -> None:
    (here / "live").mkdir()
    (here / "elsewhere").mkdir()
    for name in ("live/1.pem", "elsewhere/2.pem"):
        (here / name).write_text("x")
    (here / "live/tls.pem").symlink_to("1.pem")
    run(
        """
import subprocess
from tunnel.keystore.files import read_file
from tunnel.errors import IdentityError
from tunnel.sandbox.landlock import explain_denial
mover = subprocess.Popen(["/bin/sh", "-c", f"read _; ln -sfn ../elsewhere/2.pem {HERE}/live/tls.pem"], stdin=subprocess.PIPE)
sandbox(files=(HERE + "/live/tls.pem",))
mover.communicate(b"\\n")
try:
    read_file(HERE + "/live/tls.pem")
except IdentityError as error:
    assert "permission denied" in str(error)
    assert f"; Landlock denies '{os.path.realpath(HERE)}/elsewhere/2.pem', which" in explain_denial(error)
else:
    raise AssertionError("read")
""",
        here,
    )


def test_other_failures_do_not_name_landlock(tmp_path: Path) -> None:
    assert explain_denial(None) == explain_denial(ValueError()) == explain_denial(PermissionError()) == ""
    assert explain_denial(FileNotFoundError(2, "x", str(tmp_path))) == ""
    assert explain_denial(PermissionError(13, "x", str(tmp_path / "missing"))) == ""
    assert explain_denial(PermissionError(13, "x", str(tmp_path))) != "", "its mode allows it"


@real
def test_files_that_flags_name_can_be_read_again_after_they_were_replaced(here: Path) -> None:
    (here / "live").mkdir()
    (here / "archive").mkdir()
    (here / "archive/1.pem").write_text("one")
    (here / "archive/2.pem").write_text("two")
    (here / "live/tls.pem").symlink_to("../archive/1.pem")
    run(
        """
import subprocess, time
def replaced(name):  # by somebody else, who is not restricted
    return f"ln -s ../archive/{name} {HERE}/live/new && mv -T {HERE}/live/new {HERE}/live/tls.pem"
read, write = os.pipe()
other = subprocess.Popen(["/bin/sh", "-c", "read _; " + replaced("2.pem")], stdin=read, stdout=subprocess.DEVNULL)
sandbox(files=(HERE + "/live/tls.pem",))
assert open(HERE + "/live/tls.pem").read() == "one"
os.write(write, b"\\n")
assert other.wait(60) == 0
assert open(HERE + "/live/tls.pem").read() == "two"
assert denied(open, HERE + "/live/tls.pem", "a") and denied(os.unlink, HERE + "/live/tls.pem")
""",
        here,
    )


@real
def test_a_unix_socket_is_created_and_removed_where_a_flag_names_it_and_dialled_anywhere(here: Path) -> None:
    (here / "in").mkdir()
    run(
        """
from tunnel.net.listen import open_listener
outside = socket.socket(socket.AF_UNIX)
outside.bind(HERE + "/out.sock")
outside.listen()
logger = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
logger.bind(HERE + "/log")
sandbox(listens=(UnixAddress(HERE + "/in/s"),), dials=(UnixAddress(HERE + "/out.sock"),))
for _ in range(2):
    listener = open_listener(parse_address(f"unix:{HERE}/in/s"))
    socket.socket(socket.AF_UNIX).connect(HERE + "/in/s")
    listener.close()
    assert not os.path.exists(HERE + "/in/s")
socket.socket(socket.AF_UNIX).connect(HERE + "/out.sock")
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", HERE + "/log")
assert denied(socket.socket(socket.AF_UNIX).bind, HERE + "/other.sock")
from tunnel.syslog import open_syslog
assert open_syslog("tunnel", 1, (HERE + "/log",)).write(b"hello", 0) == 5
""",
        here,
    )


@real
def test_ports_that_no_flag_names_can_neither_be_dialled_nor_served(here: Path) -> None:
    run(
        """
servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
target, other = (server.getsockname()[1] for server in servers)
probe = socket.create_server(("127.0.0.1", 0)); free = probe.getsockname()[1]; probe.close()
sandbox(listens=(TcpAddress("", str(free)),), dials=(TcpAddress("localhost", str(target)),))
socket.create_connection(("127.0.0.1", target)).close()
assert denied(socket.create_connection, ("127.0.0.1", other))
socket.create_server(("127.0.0.1", free)).close()
assert denied(socket.create_server, ("127.0.0.1", 0))
assert denied(socket.create_server, ("127.0.0.1", other))
servers[1].setblocking(False)
assert not denied(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", other))), "only TCP is restricted"
""",
        here,
    )


@real
def test_port_0_takes_a_free_port_and_no_given_one(here: Path) -> None:
    run(
        """
from tunnel.net.listen import open_listener
probe = socket.create_server(("127.0.0.1", 0)); free = probe.getsockname()[1]; probe.close()
sandbox(listens=(TcpAddress("", "0"),))
assert open_listener(TcpAddress("", "0")).socket.getsockname()[1] > 0
assert open_listener(TcpAddress("127.0.0.1", "0")).socket.getsockname()[1] > 0
assert denied(socket.create_server, ("127.0.0.1", free))
""",
        here,
    )


@real
def test_threads_and_processes_that_come_later_are_restricted_too(here: Path) -> None:
    (here / "secret").write_text("x")
    run(
        """
import subprocess, threading
sandbox()
answers = []
thread = threading.Thread(target=lambda: answers.append(denied(open, HERE + "/secret")))
thread.start(); thread.join()
assert answers == [True]
child = subprocess.run([sys.executable, "-c", "open('secret')"], cwd=HERE, capture_output=True, text=True)
assert "PermissionError" in child.stderr, child.stderr
""",
        here,
    )


@real
def test_late_imports_work(here: Path) -> None:
    run(
        """
import trio  # looks for libraries by running programs, before the confinement in every command
sandbox()
assert "encodings.idna" not in sys.modules
import grpc, OpenSSL.SSL, cryptography.hazmat.primitives.serialization.pkcs12
import encodings.idna, multiprocessing.connection, sqlite3, ssl, zoneinfo, importlib.metadata
import tunnel.proxy.process, tunnel.identity.workload
assert socket.getaddrinfo("localhost", "http" if os.path.exists("/etc/services") else 80)
assert denied(lambda: None) is False
try:
    socket.getaddrinfo("h\\u00f6st.invalid", 80)  # goes through encodings.idna, and may ask a name server
except socket.gaierror:
    pass
ssl.create_default_context()
assert zoneinfo.ZoneInfo("UTC")
assert importlib.metadata.version("trio")
assert os.listdir("/proc/self/fd") and open("/proc/self/statm").read() and open("/proc/sys/net/core/somaxconn").read()
assert open("/etc/hosts").read() is not None
assert trio.run(trio.to_thread.run_sync, os.getpid) == os.getpid()
""",
        here,
    )


@real
def test_a_later_process_finds_the_package_in_the_current_directory(here: Path) -> None:
    shutil.copytree(ROOT / "tunnel", here / "tunnel", ignore=shutil.ignore_patterns("__pycache__"))
    (here / "secret").write_text("x")
    run(
        """
import subprocess, tunnel
assert tunnel.__file__.startswith(HERE)
sandbox()
source = "import tunnel.policy.plan_check; print(tunnel.__file__)"
child = subprocess.run([sys.executable, "-P", "-c", source], env={"PYTHONPATH": HERE}, capture_output=True, text=True)
assert child.stdout.startswith(HERE), child
assert denied(open, HERE + "/secret")
""",
        here,
        PYTHONPATH=str(here),
    )


@real
def test_grpc_reaches_a_workload_api_by_its_path(here: Path) -> None:
    run(
        """
os.environ["GRPC_VERBOSITY"] = "NONE"
import subprocess
server = '''
import sys, grpc, concurrent.futures
server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
assert server.add_insecure_port("unix:" + sys.argv[1])
server.start()
print("up", flush=True)
sys.stdin.read()
'''
other = subprocess.Popen([sys.executable, "-c", server, HERE + "/api.sock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert other.stdout.readline() == b"up\\n"
sandbox()
import grpc
with grpc.insecure_channel("unix:" + HERE + "/api.sock") as channel:
    try:
        channel.unary_unary("/none/None")(b"", timeout=60)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED, error
other.stdin.close(); other.stdout.close()
assert other.wait(60) == 0
""",
        here,
    )


@real
def test_dropped_rights_cannot_be_regained(here: Path) -> None:
    (here / "secret").write_text("x")
    run('sandbox()\nsandbox(files=(HERE + "/secret",))\nassert denied(open, HERE + "/secret")\n', here)
