"""`tunnel status` and the status ports of real proxies."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.config_files import ServedFile
from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import Backend, echo, free_port
from tests.support.processes import LIMIT, bare_environment, eventually
from tests.support.run_line import has_echo
from tests.support.unix_status_port import status
from tests.support.workloads import CLIENT, SERVER, STRANGER, Workloads
from tunnel.cli.main import main

_RUN = """
import sys
from tunnel.cli.main import main
code = main(sys.argv[1:], {})
heavy = {"trio", "grpc", "OpenSSL", "cryptography", "http.client", "prometheus_client", "asyncio"}
print(code, sorted(heavy & set(sys.modules)))
"""


def test_the_report_shows_who_is_connected_and_who_was_refused(
    workloads: Workloads, capsys: pytest.CaptureFixture[str]
) -> None:
    served = ServedFile(workloads)
    backend = workloads.enter(Backend(echo))
    served.add("one", backend.target)
    served.add("two", f"unix:{served.place}/absent")
    served.start()
    place = f"unix:{served.status}"
    with served.connect("one") as peer:
        assert has_echo(peer)
        assert not served.is_admitted("one", STRANGER)
        eventually(lambda: bool(status(served.status, "", "/_overview")[1]["refusals"]), "a refusal in the overview")
        assert main(["status", place], {}) == 0
        lines = capsys.readouterr().out.splitlines()
        assert main(["status", place, "--json", "--listener=two"], {}) == 0
        document = json.loads(capsys.readouterr().out)
    assert lines[1] == "  ready: listening"
    assert lines[2].startswith(f"  pid {served.process.pid}, up ")
    (row,) = [line.split() for line in lines if line.startswith("  one ")]
    assert row == ["one", "inbound", f"unix:{served.front('one')}", backend.target, "ready", *"1 2 1 1 0 4 B 4 B".split()]
    assert any(line.startswith(f"  {SERVER}") and "in 59 minutes" in line for line in lines)
    assert any(line.split()[:4] == [CLIENT, "one", "1", "1"] for line in lines)
    assert f"      to admit this peer: --allow-id {STRANGER}" in lines
    assert f'      in a configuration file: {{ allow = "{STRANGER}" }}' in lines
    assert [one["name"] for one in document["listeners"]] == ["two"]
    assert main(["status", place, "--listener=three"], {}) == 1
    assert 'no listener "three"' in capsys.readouterr().err
    assert served.process.stop() == 0
    assert main(["status", place], {}) == 1
    assert "no such file" in capsys.readouterr().err


def test_a_port_with_tls_is_queried_as_by_health(file_identities: FileIdentities, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"127.0.0.1:{free_port()}"
    with Backend(echo) as backend:
        assert file_identities.serve(backend.target, f"--status={where}").address
        for line in ([where], [f"https://{where}", f"--cacert={file_identities.pki.cacert}"]):
            assert main(["status", *line], {}) == 0
            assert "  ready: listening\n" in capsys.readouterr().out
        assert main(["status", f"http://{where}"], {}) == 1
        assert "the server uses HTTPS" in capsys.readouterr().err


def test_nothing_heavy_is_loaded(workloads: Workloads) -> None:
    served = ServedFile(workloads)
    served.add("one", "127.0.0.1:1")
    served.start()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, "status", f"unix:{served.status}"],
        env=bare_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0 []", "")
