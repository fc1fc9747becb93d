"""Revocation lists: a finding for each one that will not be accepted, whatever the identity source is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.certificate_files import HOUR
from tests.support.check_runner import CheckReport, run_check
from tests.support.file_identities import FileIdentities
from tests.support.workloads import SERVER, Workloads
from tunnel.check import revocation as revocation_check
from tunnel.check.finding import Verdict

REST = ("--allow-all", "--listen=127.0.0.1:0", "--target=unix:/nonexistent/t")


@pytest.fixture
def file_identities(tmp_path: Path) -> Iterator[FileIdentities]:
    with closing(FileIdentities(tmp_path)) as file_identities:
        yield file_identities


def ask(file_identities: FileIdentities, *flags: str) -> CheckReport:
    return run_check("server", *file_identities.named(file_identities.server_files), *REST, *flags)


def with_agent(workloads: Workloads, path: Path) -> CheckReport:
    return run_check("server", f"--use-workload-api-addr={workloads.sockets[SERVER]}", *REST, f"--crl={path}")


def test_valid_lists_are_counted_and_none_is_not_mentioned(file_identities: FileIdentities) -> None:
    pki = file_identities.pki
    lists = pki.revocation_list("root", pki.root), pki.revocation_list("middle", pki.middle)
    found = ask(file_identities, *(f"--crl={path}" for path in lists)).the("revocation")
    assert (found.verdict, found.detail) == (Verdict.OK, "2 lists, valid for every authority that needs one")
    assert not ask(file_identities).all("revocation")


def test_an_expired_list_and_our_own_revoked_certificate_are_warned_of(file_identities: FileIdentities) -> None:
    pki = file_identities.pki
    lists = (
        pki.revocation_list("root", pki.root, ends_in=-HOUR),
        pki.revocation_list("middle", pki.middle, file_identities.server_files.leaf),
    )
    own, expired = ask(file_identities, *(f"--crl={path}" for path in lists)).all("revocation")
    assert own.verdict is expired.verdict is Verdict.WARNING
    assert "our own certificate" in own.detail
    assert "revocation list of 'CN=pki root' expired" in expired.detail


def test_a_missing_list_is_warned_of(file_identities: FileIdentities) -> None:
    pki = file_identities.pki
    found = ask(file_identities, f"--crl={pki.revocation_list('middle', pki.middle)}").the("revocation")
    assert "no revocation list of 'CN=pki root': certificates of this issuer are refused" in found.detail


def test_a_file_that_cannot_be_used_is_a_problem_with_files_and_with_an_agent(
    file_identities: FileIdentities, workloads: Workloads, tmp_path: Path
) -> None:
    path = tmp_path / "bad.crl"
    path.write_bytes(b"rubbish")
    found = ask(file_identities, f"--crl={path}").the("certificate")
    assert (found.verdict, "bad-revocation-list: " in found.detail) == (Verdict.PROBLEM, True)
    found = with_agent(workloads, path).the("revocation")
    assert (found.verdict, "bad-revocation-list: " in found.detail) == (Verdict.PROBLEM, True)


def test_lists_are_checked_with_an_agent(workloads: Workloads, file_identities: FileIdentities) -> None:
    pki = file_identities.pki
    found = with_agent(workloads, pki.revocation_list("root", pki.root)).the("revocation")
    assert (found.verdict, "no revocation list of " in found.detail) == (Verdict.WARNING, True)


def test_a_pipe_without_a_writer_is_a_timeout(workloads: Workloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_check, "READ_LIMIT", 0.2)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert "no answer within 0.2s" in with_agent(workloads, path).the("revocation").detail
