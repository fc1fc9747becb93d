"""`tunnel check` for scripts: exit code, output stream, and invalid command lines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.check_runner import run_check
from tests.support.plain_backends import free_port
from tests.support.processes import LIMIT, bare_environment, tunnel_argv
from tests.support.workloads import CLIENT, SERVER, Workloads
from tunnel.check.finding import Verdict
from tunnel.cli.main import main

WHERE = ("--listen=127.0.0.1:0", "--target=unix:/nonexistent/target")


def test_a_process_ends_with_its_report_on_standard_output_alone(workloads: Workloads) -> None:
    workloads.api.withdraw(workloads.sockets[SERVER])
    source = f"--use-workload-api-addr={workloads.sockets[SERVER]}"
    line = tunnel_argv("check", "server", source, *WHERE, "--allow-id", CLIENT, "--timeout=0.3s")
    done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, env=bare_environment(), check=False)
    assert (done.returncode, done.stderr) == (1, "")
    marks = {line[:4] for line in done.stdout.splitlines()[:-1]}
    assert marks <= {"ok  ", "??  ", "!!  ", "--  "}
    assert done.stdout.splitlines()[-1].startswith("2 problems")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "no identity source"),
        (("--keystore=a.pem", "--cert=b.pem", "--key=c.pem"), "are mutually exclusive"),
        (("--use-workload-api-addr=unix:///nonexistent/a.sock", "--enable-pprof"), "--enable-pprof needs --status"),
    ],
)
def test_the_rest_of_an_invalid_command_line_is_checked(flags: tuple[str, ...], words: str) -> None:
    report = run_check("server", *WHERE, "--allow-cn=web", *flags)
    assert words in report.the("command-line").detail
    assert report.the("listen").verdict is Verdict.OK
    assert report.the("target").verdict is Verdict.PROBLEM


def test_the_port_of_health_is_checked_too(tmp_path: Path) -> None:
    report = run_check("server", *WHERE, "--keystore=none.pem", "--allow-cn=web", f"--health=unix:{tmp_path}/health")
    assert report.the("health").verdict is Verdict.OK
    report = run_check("server", *WHERE, "--keystore=none.pem", "--allow-cn=web", f"--health=unix:{tmp_path}/none/health")
    assert report.the("health").verdict is Verdict.PROBLEM


def test_a_client_with_an_invalid_proxy_does_not_connect_without_it() -> None:
    line = ("client", "--disable-authentication", "--listen=127.0.0.1:0", f"--target=127.0.0.1:{free_port()}")
    report = run_check(*line, "--proxy=ftp://a:1")
    assert "unknown scheme" in report.the("command-line").detail
    assert report.the("target").verdict is Verdict.SKIPPED
    assert report.all("server") == []


def test_what_only_warns_in_a_start_only_warns_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["check", "server", "--keystore", f"{tmp_path}/none.pem", "--spiffe-hint=x", "--allow-cn=web", *WHERE]
    assert main(line, {}) == 1
    assert "??  command-line: --spiffe-hint has no effect without the Workload API" in capsys.readouterr().out
