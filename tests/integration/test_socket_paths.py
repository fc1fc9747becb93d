"""Paths of Unix sockets, as long as the kernel takes them and longer, on every command line that has one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import LIMIT, bare_environment, tunnel_argv
from tests.support.workloads import CLIENT, SERVER, Workloads

LONG = "/" + "p" * 129
PATH = "socket path has 130 bytes; expected at most 107"
NAME = "socket name has 130 bytes; expected at most 107"
API = "--use-workload-api-addr=unix:///nobody/there"
SERVE = ("server", API, "--allow-all")
CALL = ("client", API, "--verify-any")
HERE, THERE = "--listen=127.0.0.1:0", "--target=127.0.0.1:1"


def end(*arguments: str, **environ: str) -> tuple[int, str]:
    """The exit code of a command, and the one line that it says on standard error."""
    ended = subprocess.run(
        tunnel_argv(*arguments), env={**bare_environment(), **environ}, capture_output=True, text=True, timeout=LIMIT
    )
    (line,) = ended.stderr.splitlines()
    return ended.returncode, line


LINES = [
    ((*SERVE, f"--listen=unix:{LONG}", THERE), "--listen", f"unix:{LONG}", PATH, 1),
    ((*SERVE, f"--listen=unix:@{LONG}", THERE), "--listen", f"unix:@{LONG}", NAME, 1),
    ((*SERVE, HERE, f"--target=unix:{LONG}"), "--target", f"unix:{LONG}", PATH, 1),
    ((*SERVE, HERE, f"--target=unix:@{LONG}"), "--target", f"unix:@{LONG}", NAME, 1),
    ((*SERVE, HERE, THERE, f"--status=unix:{LONG}"), "--status", f"unix:{LONG}", PATH, 1),
    ((*CALL, f"--listen=unix:{LONG}", THERE), "--listen", f"unix:{LONG}", PATH, 1),
    ((*CALL, HERE, f"--target=unix:{LONG}"), "--target", f"unix:{LONG}", PATH, 1),
    (("check", *CALL, HERE, f"--target=unix:{LONG}"), "--target", f"unix:{LONG}", PATH, 1),
    (("run", *CALL, f"--listen=unix:{LONG}", THERE, "--", "true"), "--listen", f"unix:{LONG}", PATH, 1),
    (("exec", API, "--verify-any", f"--target=unix:{LONG}", "--", "true"), "--target", f"unix:{LONG}", PATH, 125),
    (("connect", API, "--verify-any", f"unix:{LONG}"), "HOST:PORT", f"unix:{LONG}", PATH, 1),
    (("health", f"unix:{LONG}"), "ADDR", f"unix:{LONG}", PATH, 1),
    (("health", f"unix://{LONG}"), "ADDR", f"unix:{LONG}", PATH, 1),
    (("svid", "watch", API, "--out=/nobody/there", f"--health=unix:{LONG}"), "--health", f"unix:{LONG}", PATH, 1),
    (("dev", f"--socket=unix://{LONG}"), "--socket", f"unix://{LONG}", PATH, 1),
    (("dev", f"--id=unix://{LONG}=spiffe://a.test/w"), "--id", f"unix://{LONG}", PATH, 1),
]


@pytest.mark.parametrize(("line", "flag", "address", "words", "code"), LINES, ids=lambda value: None)
def test_a_path_that_is_too_long_is_one_clear_line(
    line: tuple[str, ...], flag: str, address: str, words: str, code: int
) -> None:
    kind = "Workload API address" if line[0] == "dev" else "address"
    assert end(*line) == (code, f'tunnel: error: {flag}: invalid {kind} "{address}": {words}, try --help')


def test_the_directory_and_the_name_of_a_socket_for_a_command_are_counted_together(tmp_path: Path) -> None:
    line = ("exec", API, "--verify-any", THERE, f"--unix={'s' * 100}", "--", "true")
    code, said = end(*line, XDG_RUNTIME_DIR=str(tmp_path))
    assert code == 125
    assert said.startswith(f'tunnel: error: --unix: invalid address "unix:{tmp_path}/tunnel-')
    size = len(f"{tmp_path}/tunnel-12345678/{'s' * 100}")
    assert said.endswith(f'/{"s" * 100}": socket path has {size} bytes; expected at most 107')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        (*SERVE, HERE, THERE),
        (*CALL, HERE, THERE),
        ("run", *CALL, HERE, THERE, "--", "true"),
        ("svid", "watch", API, "--out={}/tls"),
        ("svid", "jwt", API, "--audience=db", "--out={}/token", "--watch"),
        ("svid", "jwt", "bundles", API, "--out={}/bundles", "--watch"),
    ],
    ids=lambda line: " ".join(line[:3]),
)
def test_a_manager_that_nobody_can_reach_is_refused_at_the_start(line: tuple[str, ...], tmp_path: Path) -> None:
    code, said = end(*(word.format(tmp_path) for word in line), NOTIFY_SOCKET=LONG)
    assert code == (125 if line[0] == "run" else 1)
    assert f'error: NOTIFY_SOCKET: invalid address "{LONG}": {PATH}' in said


def test_the_longest_path_and_name_work(workloads: Workloads) -> None:
    """With a character of several bytes: it is bytes that are counted."""
    room = 107 - len(os.fsencode(workloads.directory)) - 1
    listening = workloads.directory / ("\u00e4" * (room // 2) + "l" * (room % 2))
    status = workloads.directory / ("s" * room)
    name = "@" + workloads.directory.name + "n" * (107 - len(workloads.directory.name))
    assert len(os.fsencode(listening)) == len(os.fsencode(status)) == len(name) - 1 == 107
    server = workloads.proxy(
        "server", SERVER, f"--listen=unix:{listening}", f"--target=unix:{name}", f"--status=unix:{status}", "--allow-all"
    )
    server.wait_for("listening for connections on")
    client = workloads.proxy("client", CLIENT, f"--listen=unix:{name}", f"--target=unix:{listening}", "--verify-any")
    client.wait_for("listening for connections on")
    ended = subprocess.run(tunnel_argv("health", f"unix:{status}"), env=bare_environment(), timeout=LIMIT)
    assert ended.returncode == 0
