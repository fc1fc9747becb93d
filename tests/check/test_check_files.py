"""Certificate files: a finding for each error that a start would meet."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.certificate_files import FOR_CLIENTS, HOUR
from tests.support.check_runner import CheckReport, another_user, run_check
from tests.support.file_identities import FileIdentities
from tests.support.workloads import Identity
from tunnel.check import files as files_check
from tunnel.check.finding import Verdict


@pytest.fixture
def file_identities(tmp_path: Path) -> Iterator[FileIdentities]:
    with closing(FileIdentities(tmp_path)) as file_identities:
        yield file_identities


def ask(file_identities: FileIdentities, files: Identity, *flags: str) -> CheckReport:
    return run_check(
        "server", *file_identities.named(files), "--allow-all", "--listen=127.0.0.1:0", "--target=unix:/nonexistent/t", *flags
    )


def test_a_valid_pair_is_described_with_its_names(file_identities: FileIdentities) -> None:
    file_identities.server_files.key.chmod(0o600)
    report = ask(file_identities, file_identities.server_files)
    assert report.wrong() == ["target"]
    assert report.the("certificate").detail == "CN=server for localhost, 127.0.0.1, chain of 2, key (EC secp256r1) matches"
    assert report.the("expiry").verdict is Verdict.OK
    assert report.the("authorities").detail == f"1 in {file_identities.pki.cacert}"
    assert report.the("key-file").verdict is Verdict.OK


def test_a_key_that_others_can_read_is_a_warning(file_identities: FileIdentities) -> None:
    file_identities.server_files.key.chmod(0o644)
    found = ask(file_identities, file_identities.server_files).the("key-file")
    assert found.verdict is Verdict.WARNING
    assert "mode 0644" in found.detail


def test_a_certificate_that_peers_would_refuse_is_reported(file_identities: FileIdentities) -> None:
    for_clients = file_identities.pki.leaf("odd", dns=("localhost",), purposes=FOR_CLIENTS)
    _good, lacking = ask(file_identities, for_clients).all("certificate")
    assert lacking.verdict is Verdict.WARNING
    assert "lacks serverAuth" in lacking.detail
    nameless = file_identities.pki.leaf("nameless")
    assert "no DNS name" in ask(file_identities, nameless).all("certificate")[1].detail


@pytest.mark.parametrize(
    ("start", "end", "verdict", "words"),
    [
        (-3, -2, Verdict.PROBLEM, "expired 2 hours ago"),
        (2, 3, Verdict.PROBLEM, "not valid before"),
        (-20, 1, Verdict.WARNING, "left"),
    ],
)
def test_dates_are_compared_with_this_clock(
    file_identities: FileIdentities, start: int, end: int, verdict: Verdict, words: str
) -> None:
    now = datetime.now(UTC)
    files = file_identities.pki.leaf(
        "dated", dns=("localhost",), start=now + start * HOUR, end=now + end * HOUR + timedelta(minutes=-1)
    )
    found = ask(file_identities, files).the("expiry")
    assert found.verdict is verdict
    assert words in found.detail


def test_a_key_of_another_certificate_is_reported(file_identities: FileIdentities) -> None:
    mixed = Identity(file_identities.server_files.chain, file_identities.client_files.key)
    report = ask(file_identities, mixed)
    assert report.the("certificate").verdict is Verdict.PROBLEM
    assert report.the("certificate").detail.startswith("bad-key: ")
    missing = Identity(file_identities.directory / "no.pem", file_identities.client_files.key)
    assert "correct the path" in ask(file_identities, missing).the("certificate").advice


def test_an_unreadable_file_is_reported(file_identities: FileIdentities) -> None:
    file_identities.server_files.key.chmod(0)
    with another_user():
        found = ask(file_identities, file_identities.server_files).the("certificate")
    assert "permission denied" in found.detail
    assert "let this user read it" in found.advice


def test_a_pipe_without_a_writer_is_a_timeout(file_identities: FileIdentities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_check, "READ_LIMIT", 0.2)
    pipe = file_identities.directory / "pipe"
    os.mkfifo(pipe)
    began = time.monotonic()
    found = ask(file_identities, Identity(pipe, file_identities.server_files.key)).the("certificate")
    assert "no answer within 0.2s" in found.detail
    assert time.monotonic() - began < 30
    os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))  # lets the thread that was left behind go


def test_missing_and_public_web_authorities_are_reported(file_identities: FileIdentities, tmp_path: Path) -> None:
    line = (
        "server",
        f"--cert={file_identities.server_files.chain}",
        f"--key={file_identities.server_files.key}",
        "--allow-all",
    )
    rest = ("--listen=127.0.0.1:0", "--target=unix:/nonexistent/t")
    nothing = {"SSL_CERT_FILE": str(tmp_path / "no"), "SSL_CERT_DIR": str(tmp_path / "no")}
    assert run_check(*line, *rest, environ=nothing).the("authorities").verdict is Verdict.PROBLEM
    web = {"SSL_CERT_FILE": str(file_identities.pki.cacert), "SSL_CERT_DIR": str(tmp_path / "no")}
    assert "public web authorities verify" in run_check(*line, *rest, environ=web).the("authorities").detail
