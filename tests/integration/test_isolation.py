"""Variables of the environment that are meant for a command change nothing in this program, and reach the command unchanged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import tunnel
from tests.support.command_runner import environment, run_tool
from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import LIMIT, Process, Proxy, tunnel_argv
from tests.support.run_line import client
from tests.support.workloads import CLIENT, SERVER, Workloads
from tunnel.cli.variables import MANAGER, SECRETS, SOCKETS

ID = f"--verify-id={SERVER}"
SOURCE = Path(tunnel.__file__).parents[1] / "bin/tunnel"
MODULES = ("trio", "queue", "grpc/__init__", "tunnel/__init__", "ssl", "json/__init__", "sitecustomize", "usercustomize")
SHOW = ("sh", "-c", "cat /proc/$$/environ; exit 3")


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A directory for PYTHONPATH; the modules in it note in the file `imported` that they were imported."""
    directory = tmp_path / "modules"
    for name in MODULES:
        path = directory / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name + ' '!r})\n__version__ = 'foreign'\n")
    return tmp_path / "imported"


@pytest.fixture
def hostile(imported: Path, tmp_path: Path) -> dict[str, str]:
    """Every variable that the interpreter or a library would obey, with a value that would be noticed."""
    (tmp_path / "openssl.cnf").write_text("openssl_conf = nonsense\n[nonsense]\nproviders = none\n[none]\ndefault = no\n")
    return {
        "PYTHONPATH": str(tmp_path / "modules"),
        "PYTHONHOME": "/nonexistent",
        "PYTHONINSPECT": "1",
        "PYTHONSTARTUP": "/nonexistent",
        "PYTHONVERBOSE": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONMALLOC": "debug",
        "GRPC_POLL_STRATEGY": "nonsense",
        "GRPC_VERBOSITY": "debug",
        "GRPC_TRACE": "all",
        "OPENSSL_CONF": str(tmp_path / "openssl.cnf"),
        "OPENSSL_MODULES": "/nonexistent",
        "OPENSSL_ENGINES": "/nonexistent",
        "SSLKEYLOGFILE": str(tmp_path / "keys"),
        "PROMETHEUS_MULTIPROC_DIR": "/nonexistent",
        "prometheus_multiproc_dir": "/nonexistent",
        "CRYPTOGRAPHY_OPENSSL_NO_LEGACY": "1",
        "REQUESTS_CA_BUNDLE": "/nonexistent",
        "OTEL_SDK_DISABLED": "nonsense",
        "OTEL_PROPAGATORS": "nonsense",
        "OTEL_SERVICE_NAME": "app",
        "LANG": "C",  # without a locale the interpreter sets LC_CTYPE
        "ODD": "\udcff=\n",
    }


@pytest.fixture
def target(workloads: Workloads) -> str:
    """A server in front of an echo."""
    return workloads.server(workloads.enter(Backend(echo)).target).target


def given(workloads: Workloads, hostile: Mapping[str, str], who: str = CLIENT) -> dict[str, str]:
    """The environment of a workload, with these variables and with no other that says how to print or to test."""
    clean = {
        name: value for name, value in environment(workloads, who).items() if not name.startswith(("LC_", "PYTHON", "TUNNEL_"))
    }
    return {**clean, **hostile}


def shown(output: bytes) -> dict[str, str]:
    """The environment that `SHOW` has printed."""
    pairs = (entry.partition(b"=") for entry in output.split(b"\0") if entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in (*SOCKETS, *MANAGER, *SECRETS)}


def run(environ: Mapping[str, str], *argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False)


def test_the_script_that_is_tested_is_isolated_by_its_first_line() -> None:
    script = Path(tunnel_argv()[0]).read_text().splitlines()
    assert script[0].endswith(" -I")
    assert script[-1] == SOURCE.read_text().splitlines()[-1]


def test_exec_gives_the_command_what_it_does_not_obey(
    workloads: Workloads, target: str, hostile: dict[str, str], imported: Path
) -> None:
    environ = given(workloads, hostile)
    done = run(environ, *tunnel_argv("exec", f"--target={target}", ID, "--", *SHOW))
    assert (done.returncode, done.stderr) == (3, b"")
    found = shown(done.stdout)
    added = {name: found.pop(name) for name in ("TUNNEL_HOST", "TUNNEL_PORT", "TUNNEL_ADDR")}
    assert added["TUNNEL_ADDR"] == f"{added['TUNNEL_HOST']}:{added['TUNNEL_PORT']}"
    assert found == without_ours(environ)
    assert not imported.exists()


def test_each_variable_alone_changes_nothing(
    workloads: Workloads, target: str, hostile: dict[str, str], imported: Path
) -> None:
    for name, value in hostile.items():
        done = run(given(workloads, {name: value}), *tunnel_argv("exec", f"--target={target}", ID, "--", "printenv", name))
        assert (done.returncode, done.stdout, done.stderr) == (0, os.fsencode(value) + b"\n", b""), name
    assert not imported.exists()
    assert not Path(hostile["SSLKEYLOGFILE"]).exists()


@pytest.mark.parametrize("strategy", ["poll", "epoll1", "epollex", "none", "nonsense"])
def test_no_strategy_of_grpc_ends_the_process(workloads: Workloads, target: str, strategy: str) -> None:
    done = run_tool(environment(workloads, GRPC_POLL_STRATEGY=strategy), "exec", f"--target={target}", ID, "--", "true")
    assert (done.code, done.err) == (0, "")


def test_run_gives_the_command_what_it_does_not_obey(
    workloads: Workloads, target: str, hostile: dict[str, str], imported: Path
) -> None:
    environ = given(workloads, hostile)
    done = run(environ, *tunnel_argv("run", *client(workloads, target), "--", *SHOW))
    assert done.returncode == 3, done.stderr
    assert shown(done.stdout) == without_ours(environ)
    assert not imported.exists()


def test_svid_watch_gives_the_command_what_it_does_not_obey(
    workloads: Workloads, hostile: dict[str, str], imported: Path, tmp_path: Path
) -> None:
    """The command, which an interpreter of its own starts, and a reload command."""
    environ = given(workloads, hostile)
    watch = tunnel_argv("svid", "watch", f"--out={tmp_path / 'tls'}")
    done = run(environ, *watch, "--", *SHOW)
    assert done.returncode == 3, done.stderr
    assert shown(done.stdout) == without_ours(environ)
    watching = workloads.watch(
        Process([*watch, f"--reload-command=cp /proc/self/environ {tmp_path}/reloaded"], environ=environ, is_merged=True)
    )
    watching.wait_for("cp succeeded")
    assert shown((tmp_path / "reloaded").read_bytes()) == without_ours(environ)
    assert not imported.exists()


def test_a_server_serves_and_its_health_is_told(
    workloads: Workloads, hostile: dict[str, str], imported: Path, tmp_path: Path
) -> None:
    backend = workloads.enter(Backend(echo))
    environ = given(workloads, hostile, SERVER)
    status = f"unix:{tmp_path}/status"
    flags = ("--listen=127.0.0.1:0", f"--target={backend.target}", "--allow-all", f"--status={status}")
    server = workloads.watch(Proxy(tunnel_argv("server", *flags), environ=environ))
    caller = workloads.client(server.target)
    with connect(caller.address) as sock:
        sock.sendall(b"ping")
        assert sock.recv(9) == b"ping"
    done = run(environ, *tunnel_argv("health", status))
    assert (done.returncode, done.stderr) == (0, b"")
    assert run(environ, *tunnel_argv("health", f"{status}", "--path=/_metrics?format=prometheus")).returncode == 0
    assert not imported.exists()
    assert not Path(hostile["SSLKEYLOGFILE"]).exists()
    server.signal(signal.SIGTERM)
    assert server.exit_code() == 0


def test_the_demonstration_starts_isolated_processes(hostile: dict[str, str], imported: Path) -> None:
    process = Process(tunnel_argv("demo"), environ={**os.environ, **hostile})
    try:
        assert process.exit_code() == 0
    finally:
        process.close()
    assert not imported.exists()


# -- the script as pip leaves it


def script_without_flag(directory: Path, python: str) -> Path:
    """The script as pip installs it: without the arguments of its first line."""
    script = directory / "bin/tunnel"
    script.parent.mkdir()
    script.write_text(f"#!{python}\n{SOURCE.read_text().partition(chr(10))[2]}")
    script.chmod(0o755)
    return script


def test_a_script_that_has_lost_the_flag_isolates_itself(
    workloads: Workloads, target: str, hostile: dict[str, str], imported: Path, tmp_path: Path
) -> None:
    """A first interpreter obeys some of the variables; it is replaced before it loads anything of the program."""
    script = script_without_flag(tmp_path, sys.executable)
    for name in ("PYTHONHOME", "PYTHONVERBOSE", "PYTHONWARNINGS"):
        del hostile[name]
    environ = given(workloads, hostile)
    link = tmp_path / "linked"
    link.symlink_to(script)
    done = run(environ, str(link), "exec", f"--target={target}", ID, "--", *SHOW)
    assert (done.returncode, done.stderr) == (3, b"")
    found = shown(done.stdout)
    assert {name: value for name, value in found.items() if not name.startswith("TUNNEL_")} == without_ours(environ)
    assert set(imported.read_text().split()) <= {"sitecustomize", "usercustomize"}
    for locale in ("C", "POSIX", "C.UTF-8"):
        done = run(
            environ | {"LC_CTYPE": locale}, str(link), "exec", f"--target={target}", ID, "--", "sh", "-c", "echo $LC_CTYPE"
        )
        assert done.stdout.decode() == f"{locale}\n"
    done = run(environ, str(link), "exec", f"--target={target}", ID, "--", "sh", "-c", "cat /proc/$PPID/comm")
    assert done.stdout == b"linked\n"


def test_packages_beside_the_script_are_found(tmp_path: Path) -> None:
    """As `pip install --user` and `--prefix` leave them, of which an isolated interpreter knows nothing."""
    script = script_without_flag(tmp_path, sys._base_executable)
    environ = {"PATH": os.environ["PATH"]}
    for command, code in (("exec", 125), ("run", 125), ("--version", 1)):
        done = run(environ, str(script), command)
        assert (done.returncode, done.stdout) == (code, b"")
        assert done.stderr.startswith(b"tunnel: error: No module named 'tunnel'; install ")
    packages = tmp_path / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    (packages / "tunnel").symlink_to(Path(tunnel.__file__).parent)
    done = run(environ, str(script), "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tunnel {tunnel.__version__}\n".encode(), b"")
