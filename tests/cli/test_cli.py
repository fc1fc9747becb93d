"""An invalid line gives one line on standard error and exit code 1; neither it nor help loads a large library."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tunnel import __version__
from tunnel.cli.main import main
from tunnel.commands.proxy import command as proxy
from tunnel.commands.registry import load_commands

ROOT = Path(__file__).parents[2]
HEAVY = ("trio", "grpc", "OpenSSL", "cryptography")
RUN = f"""
import json, sys
from tunnel.cli.main import main
code = main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
print(code, [name for name in {HEAVY!r} if name in sys.modules])
"""

API = ("--use-workload-api-addr", "unix:///run/api.sock")
SERVER = ("server", "--listen", ":8443", "--target", "localhost:80", *API)
CLIENT = ("client", "--listen", "localhost:80", "--target", "db.example.org:8443", *API)
ID = "spiffe://a.test/w"

BAD_LINES: list[tuple[tuple[str, ...], str]] = [
    (("foo",), 'expected command but got "foo"'),
    (("foo\nbar",), 'expected command but got "foo'),
    (("server",), "required flag(s) '--listen', '--target' not provided"),
    (("client",), "required flag(s) '--listen', '--target' not provided"),
    (("--foo",), "unknown long flag '--foo'"),
    (("-x",), "unknown short flag '-x'"),
    ((*SERVER, "--allow-id", "spiffe://a.test"), "--allow-id: "),
    ((*SERVER, "--allow-id", f"{ID}\n"), "--allow-id: "),
    ((*SERVER, "--allow-uri", "spiffe://a*"), "--allow-uri: "),
    ((*SERVER, "--allow-id", ID, "extra\x1b[31m"), "unexpected extra"),
    ((*SERVER, "--allow-id", ID, "extra\udcff"), "unexpected extra"),
    ((*SERVER, "--quiet", "lo\nud"), "--quiet: enum value must be one of"),
    ((*SERVER, "--connect-timeout", "5"), '--connect-timeout: invalid duration "5"'),
    ((*SERVER, "--allow-all", "--listen", ":1"), "flag 'listen' cannot be repeated"),
    ((*SERVER, "--allow-all=true"), "unexpected true"),
    ((*CLIENT, "--verify-id"), "expected argument for flag '--verify-id'"),
    (("server", "--listen", "80", "--target", "localhost:1"), '--listen: invalid address "80": missing port'),
    ((*SERVER[:-1], "/run/api.sock"), '--use-workload-api-addr: invalid Workload API address "/run/api.sock": missing scheme'),
    (("server", "@/nonexistent"), "cannot read arguments from '/nonexistent'"),
    (("dev", "--ttl", "0"), "--ttl: "),
    (("dev", "--socket", "tcp://10.0.0.1:80"), "--socket: "),
    (("dev", "--federate", "a.test"), "--federate: "),
    (("demo", "--rotate", "0"), "--rotate: "),
    (("help", "foo"), 'expected command but got "foo"'),
]

# These lines can be parsed and are refused by the start, which also logs the error.
BAD_STARTS: list[tuple[tuple[str, ...], str]] = [
    ((*SERVER,), "no access rule for clients"),
    ((*CLIENT,), "no access rule for the server"),
    ((*SERVER, "--allow-all", "--allow-id", ID), "--allow-all and --allow-id are mutually exclusive"),
    (("client", "--listen", ":80", "--target", "x:1", *API, "--verify-id", ID), "--listen: :80 is not local"),
    (("server", "--listen", ":80", "--target", "x:1", *API, "--allow-id", ID), "--target: x:1 is not local"),
    (("server", "--listen", ":80", "--target", "localhost:1", "--allow-all"), "no identity source"),
]


def in_a_process(argv: tuple[str, ...], environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(argv), json.dumps(environ or {})],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("argv", "words"), BAD_LINES, ids=[ascii(words) for _, words in BAD_LINES])
def test_an_invalid_line_is_one_line_of_error_and_loads_no_large_library(argv: tuple[str, ...], words: str) -> None:
    done = in_a_process(argv)
    assert done.stdout == "1 []\n"
    assert done.stderr.startswith(f"tunnel: error: {words}")
    assert done.stderr.endswith(", try --help\n")
    assert done.stderr[:-1].isprintable(), "one line, without control characters"


@pytest.mark.parametrize(("argv", "words"), BAD_STARTS, ids=[ascii(words) for _, words in BAD_STARTS])
def test_a_failed_start_is_reported_in_the_log_and_on_standard_error(argv: tuple[str, ...], words: str) -> None:
    done = in_a_process(argv)
    *log, last = done.stdout.splitlines()
    assert last == "1 []", "and loads no large library"
    assert done.stderr.startswith(f"error: {words}")
    assert done.stderr[:-1].isprintable()
    assert len(log) == 2
    assert log[0].endswith(f"starting tunnel in {argv[0]} mode")
    assert log[1].endswith(done.stderr[:-1])


def test_an_invalid_environment_variable_is_one_line_of_error() -> None:
    done = in_a_process((*SERVER[:5], "--allow-all"), {"SPIFFE_ENDPOINT_SOCKET": "unix://run/api.sock"})
    assert done.stdout == "1 []\n"
    assert done.stderr.startswith(
        'tunnel: error: SPIFFE_ENDPOINT_SOCKET: invalid Workload API address "unix://run/api.sock": host in a unix URI'
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("argv", [(), ("--help",), ("help",), ("server", "--help"), ("help", "client"), ("--version",)])
def test_help_and_version_go_to_standard_output_and_load_no_large_library(argv: tuple[str, ...]) -> None:
    done = in_a_process(argv)
    *text, last = done.stdout.splitlines()
    assert last == "0 []"
    assert text
    assert done.stderr == ""


def test_help_without_a_command_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ((), ("--help",), ("help",), ("help", "help")):
        assert main(argv, {}) == 0
        out, err = capsys.readouterr()
        assert all(f"  {command.name} " in out for command in load_commands())
        assert err == ""


def test_long_help_is_the_help_on_all_and_on_each(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--help-long"], ["server", "--help-long"]):
        assert main(argv, {}) == 0
        out, _ = capsys.readouterr()
        assert out.startswith("usage: tunnel COMMAND")
        assert all(f"\nusage: tunnel {command.name} " in out for command in load_commands() if command.name != "help")


@pytest.mark.parametrize("name", [command.name for command in load_commands() if command.name != "help"])
def test_help_on_a_command_is_the_same_either_way(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"], {}) == 0
    first = capsys.readouterr().out
    assert main(["help", name], {}) == 0
    assert capsys.readouterr().out == first
    assert first.startswith(f"usage: tunnel {name}")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"], {}) == 0
    assert capsys.readouterr() == (f"tunnel {__version__}\n", "")


def test_the_flags_that_stand_before_a_command_are_known_to_the_proxy() -> None:
    assert all(flag in command.flags for command in (proxy.SERVER, proxy.CLIENT) for flag in proxy.GLOBAL_FLAGS)


def test_the_process_ends_as_the_command_line_does() -> None:
    for argv, code in ((["--version"], 0), (["foo"], 1)):
        done = subprocess.run(
            [sys.executable, "-m", "tunnel", *argv],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr


def test_warnings_of_libraries_do_not_reach_standard_error_by_default() -> None:
    """A peer can cause warnings, for example by a certificate with a negative serial number."""
    source = (
        "import sys; sys.argv[1:] = ['--version']; from tunnel.__main__ import main; main(); import warnings as w; w.warn('x')"
    )
    for options, is_seen in (((), False), (("-W", "default"), True)):
        done = subprocess.run(
            [sys.executable, *options, "-c", source],
            cwd=ROOT,
            env={**{k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"}, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert bool(done.stderr) is is_seen


def test_a_closed_standard_output_gives_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "tunnel", "server", "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_or_socket_takes_the_place_of_a_missing_standard_stream(closed: str, tmp_path: Path) -> None:
    """A socket with its descriptor would send the log to a peer."""
    source = (
        "import os, sys; sys.argv[1:] = ['--version']; from tunnel.__main__ import main; code = main(); "
        f"fd = os.open({str(tmp_path / 'seen')!r}, os.O_CREAT | os.O_WRONLY); "
        "os.write(fd, f'{code} {fd > 2} {[os.get_inheritable(fd) for fd in range(3)]}'.encode())"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, source],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "seen").read_text() == "0 True [True, True, True]"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("" if ">&-" in closed.split() else f"tunnel {__version__}\n")


def test_a_full_disk_is_one_line_of_error() -> None:
    for argv in (["--help"], ["man"], ["exec", "--help"]):
        with open("/dev/full", "wb") as full:
            argv = [sys.executable, "-m", "tunnel", *argv]
            done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
        assert (done.returncode, done.stderr) == (1, "tunnel: error: no space left on device\n")


@pytest.mark.parametrize(
    ("argv", "used", "code"),
    [
        (["health", "[::1]:1"], "commands.health.build", 1),
        (["exec", *CLIENT[3:], "--verify-any", "--", "x"], "commands.exec.run.run_command", 125),
    ],
)
def test_an_exhausted_resource_is_one_line_of_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], used: str, code: int
) -> None:
    def run(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(f"tunnel.{used}", run)
    assert main(argv, {}) == code
    assert capsys.readouterr().err == "tunnel: error: too many open files\n"


@pytest.mark.parametrize(
    ("argv", "used", "code"),
    [
        (["health", "[::1]:1"], "status.client", 1),
        (["exec", *CLIENT[3:], "--verify-any", "--", "x"], "commands.exec.run", 125),
    ],
)
def test_a_missing_package_is_one_line_of_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], used: str, code: int
) -> None:
    monkeypatch.setitem(sys.modules, f"tunnel.{used}", None)
    assert main(argv, {}) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tunnel: error: a module cannot be loaded: import of tunnel.{used} ")


def test_a_character_outside_the_locale_is_escaped() -> None:
    script = "import sys; sys.argv[1:] = ['--version']; from tunnel.__main__ import main; main(); print('\u6f22')"
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[1:] == ["\\u6f22"]
