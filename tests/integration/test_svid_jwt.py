"""`tunnel svid jwt` and `tunnel svid verify` as real processes: what goes where, exit codes, and a file that stays fresh."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.processes import LIMIT, Process, bare_environment, tunnel_argv
from tests.support.workloads import CLIENT, FOREIGNER, Workloads
from tunnel.config.dev_model import Issuing
from tunnel.devapi.publisher import Refusal
from tunnel.spiffe.jwt import parse_token


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Workloads]:
    """Workloads whose tokens are valid for three seconds."""
    with closing(Workloads(tmp_path, issuing=Issuing(jwt_ttl=timedelta(seconds=3)))) as workloads:
        yield workloads


def tunnel(workloads: Workloads, *arguments: str, of: str = CLIENT, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A command with the Workload API of one workload in its environment, to its end."""
    environ = {**bare_environment(), "SPIFFE_ENDPOINT_SOCKET": str(workloads.sockets[of])}
    return subprocess.run(tunnel_argv(*arguments), input=given, capture_output=True, env=environ, timeout=LIMIT)


def test_a_token_stands_alone_on_standard_output_and_is_judged_by_its_readers(workloads: Workloads) -> None:
    fetched = tunnel(workloads, "svid", "jwt", "--audience=db")
    assert (fetched.returncode, fetched.stderr) == (0, b"")
    assert parse_token(fetched.stdout.decode().strip()).claims["sub"] == CLIENT
    for how in ((), ("--local",)):
        good = tunnel(workloads, "svid", "jwt", "verify", "--audience=db", *how, given=fetched.stdout)
        assert (good.returncode, good.stderr) == (0, b"")
        assert good.stdout.splitlines()[-1].startswith(b"valid: " + CLIENT.encode())
    bad = tunnel(workloads, "svid", "jwt", "verify", "--audience=web", "--json", of=FOREIGNER, given=fetched.stdout)
    assert (bad.returncode, bad.stderr) == (1, b"")
    assert {rule["name"] for rule in json.loads(bad.stdout)["findings"] if rule["verdict"] == "problem"} >= {
        "workload-api",
        "aud",
    }


def test_a_file_is_kept_fresh_while_the_agent_comes_and_goes_until_sigterm(hasty: Workloads, tmp_path: Path) -> None:
    workloads = hasty
    path = tmp_path / "token"
    argv = tunnel_argv("svid", "jwt", "--audience=db", f"--out={path}", "--watch", "--json")
    watcher = workloads.watch(
        Process(argv, environ={**bare_environment(), "SPIFFE_ENDPOINT_SOCKET": str(workloads.sockets[CLIENT])})
    )
    watcher.wait_for('"event": "written"')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_text()
    watcher.wait_for('"event": "written"', count=2)
    workloads.api.publish(workloads.sockets[CLIENT], "FetchJWTSVID", Refusal("UNIMPLEMENTED", "switched off"))
    watcher.wait_for('"event": "unavailable".*switched off')
    last = path.read_text()
    assert parse_token(last).claims["exp"] > parse_token(first).claims["exp"]
    watcher.wait_for('"event": "expired"')
    workloads.api.rotate_svids()
    watcher.wait_for('"event": "written"', count=3)
    watcher.signal(signal.SIGTERM)
    assert watcher.exit_code() == 0
    assert watcher.complaints == []
    assert not any(text in watcher.transcript() for text in (first, last, path.read_text()))
    assert sorted(name for name in os.listdir(tmp_path) if "token" in name) == ["token"]


def test_a_certificate_is_judged_with_its_key_and_by_the_workload_api(workloads: Workloads, tmp_path: Path) -> None:
    (issued,) = workloads.api.issued(workloads.sockets[CLIENT])
    pem, der, key = (tmp_path / name for name in ("svid.pem", "svid.der", "key.pem"))
    pem.write_bytes(issued.chain_pem + issued.key_pem)
    der.write_bytes(issued.chain_der)
    key.write_bytes(issued.key_pem)
    for name, given in ((str(der), b""), ("-", pem.read_bytes())):
        good = tunnel(workloads, "svid", "verify", name, f"--key={key}", given=given)
        assert (good.returncode, good.stderr) == (0, b"")
        assert good.stdout.splitlines()[-1].startswith(b"valid: " + CLIENT.encode())
    bad = tunnel(workloads, "svid", "verify", str(pem), "--json", of=FOREIGNER)
    assert bad.returncode == 1
    (broken,) = (rule for rule in json.loads(bad.stdout)["findings"] if rule["verdict"] == "problem")
    assert (broken["name"], broken["reason"]) == ("certification-path", "unknown-trust-domain")
    none = tunnel(workloads, "svid", "verify", str(key))
    assert (none.returncode, none.stdout, none.stderr.count(b"\n")) == (1, b"", 1)


@pytest.mark.parametrize("what", [("jwt", "--audience=db"), ("jwt", "bundles")])
def test_a_file_that_another_process_removes_or_replaces_is_written_again(workloads: Workloads, what: tuple[str, ...]) -> None:
    here = workloads.directory / "here"
    here.mkdir()
    environ = {**bare_environment(), "SPIFFE_ENDPOINT_SOCKET": str(workloads.sockets[CLIENT])}
    argv = tunnel_argv("svid", *what, "--out=kept", "--watch", "--json")
    watcher = workloads.watch(Process(argv, environ=environ, cwd=here))
    watcher.wait_for('"event": "written"')
    kept = here / "kept"
    content = kept.read_bytes()
    kept.unlink()
    watcher.wait_for('"event": "files-changed".*"message": "kept is missing: written again"')
    assert kept.read_bytes() == content
    (here / "other").write_text("of another process")
    (here / "other").rename(kept)
    watcher.wait_for('"event": "files-changed".*"message": "kept was replaced by another process: written again"')
    assert kept.read_bytes() == content
    shutil.rmtree(here)
    watcher.wait_for('"event": "write-failed".*"message": "kept is missing: cannot write \'kept\': no such file or directory')
    here.mkdir()
    watcher.wait_for('"event": "files-changed"', count=3)
    assert kept.read_bytes() == content
    assert len(watcher.matches('"event": "write-failed"')) == 1
    assert watcher.stop() == 0
