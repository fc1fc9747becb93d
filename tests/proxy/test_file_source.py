"""Files are one unit: all are published together, or the previous credentials stay in use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.support.cert_factory import key_of, make_certificate
from tests.support.credential_files import ROOT, Files, RecordingSink
from tests.support.revocation_lists import as_pem, encode_list
from tunnel.config.model import IdentityConfig, NoIdentity
from tunnel.errors import IdentityError
from tunnel.identity.credentials import PkiCredentials
from tunnel.pkix.crl import parse_revocation_list
from tunnel.pkix.revocation import RevocationLists
from tunnel.proxy.file_source import FileSource
from tunnel.proxy.identity_source import reload_source


def run(step: Callable[[], Awaitable[None]]) -> None:
    trio.run(step)


def test_what_the_files_hold_is_published_at_start_and_at_each_reload(files: Files) -> None:
    kept = RecordingSink()
    source = files.source(kept)
    run(source.run)
    second = make_certificate(issuer=ROOT, subject="two", key=key_of("p256", 31))
    files.write(second)
    trio.run(reload_source, source)
    trio.run(reload_source, source)
    assert [number for number, _ in kept.used] == [1, 2, 3]
    credentials = kept.used[-1][1]
    assert isinstance(credentials, PkiCredentials)
    assert credentials.chain == (second.certificate,)
    assert credentials.authorities == (ROOT.certificate,)
    assert kept.lines == ["loaded certificate: CN=one", "loaded certificate: CN=two", "loaded certificate: CN=two"]


@pytest.mark.parametrize("broken", ["cert", "key", "bundle"])
def test_a_broken_file_keeps_everything_of_its_kind(files: Files, broken: str) -> None:
    kept = RecordingSink()
    source = files.source(kept)
    run(source.run)
    files.write(make_certificate(issuer=ROOT, subject="two", key=key_of("p256", 31)))
    getattr(files, broken).write_bytes(b"rubbish")
    with pytest.raises(IdentityError, match=getattr(files, broken).name):
        trio.run(reload_source, source)
    assert [number for number, _ in kept.used] == [1]


def test_revocation_lists_are_a_part_of_the_unit(files: Files, tmp_path: Path) -> None:
    lists, kept = tmp_path / "lists.pem", RecordingSink()
    lists.write_bytes(as_pem(first := encode_list(ROOT, 1)))
    source = files.source(kept, lists)
    run(source.run)
    assert kept.used[-1][1].revocation == RevocationLists((parse_revocation_list(first),), is_complete=True)
    lists.write_bytes(b"rubbish")
    files.write(make_certificate(issuer=ROOT, subject="two", key=key_of("p256", 31)))
    with pytest.raises(IdentityError, match=r"lists\.pem"):
        trio.run(reload_source, source)
    assert len(kept.used) == 1
    lists.write_bytes(second := encode_list(ROOT, 2))
    trio.run(reload_source, source)
    assert kept.used[-1][1].revocation.lists == (parse_revocation_list(second),)


def test_what_cannot_be_used_is_a_failed_reload_that_spends_no_number(files: Files) -> None:
    kept = RecordingSink()
    source = files.source(kept)
    run(source.run)
    kept.refuses = True
    with pytest.raises(IdentityError, match="cannot be presented"):
        trio.run(reload_source, source)
    kept.refuses = False
    trio.run(reload_source, source)
    assert [number for number, _ in kept.used] == [1, 2]


def test_files_that_are_broken_at_start_end_the_process(files: Files) -> None:
    kept = RecordingSink()
    files.key.unlink()
    run(files.source(kept).run)
    assert isinstance(kept.failure, IdentityError)
    assert "key.pem" in str(kept.failure)
    assert kept.used == []


def test_a_client_that_shows_nothing_has_authorities_all_the_same(files: Files) -> None:
    kept = RecordingSink()
    run(FileSource(IdentityConfig(NoIdentity(), str(files.bundle)), kept, kept.log, {}).run)
    assert kept.used == [(1, PkiCredentials((), None, (ROOT.certificate,)))]
    assert kept.lines == []


def test_without_a_bundle_the_systems_authorities_count(files: Files) -> None:
    kept = RecordingSink()
    environ = {"SSL_CERT_FILE": str(files.bundle), "SSL_CERT_DIR": "/nonexistent"}
    run(FileSource(IdentityConfig(NoIdentity()), kept, kept.log, environ).run)
    assert kept.used == [(1, PkiCredentials((), None, (ROOT.certificate,)))]


def test_a_system_without_authorities_is_warned_of(files: Files, tmp_path: Path) -> None:
    kept = RecordingSink()
    nowhere = {"SSL_CERT_FILE": str(tmp_path / "none.pem"), "SSL_CERT_DIR": str(tmp_path / "none")}
    run(FileSource(IdentityConfig(NoIdentity()), kept, kept.log, nowhere).run)
    assert "no system certificate authorities" in kept.lines[0]
