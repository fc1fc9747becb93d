"""Files are one unit: all are published together, or the previous credentials stay in use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.cert_factory import MadeCertificate, key_of, make_certificate
from tunnel.config.model import KeyFiles, NoIdentity
from tunnel.errors import IdentityError, IdentityFault, TunnelError
from tunnel.identity.credentials import Credentials, PkiCredentials
from tunnel.log import Log
from tunnel.proxy.file_source import FileSource

ROOT = make_certificate(is_ca=True, usage=("key_cert_sign",), key=key_of("p256", 20), subject="root")


class RecordingSink:
    """A sink that records credentials, and a log."""

    def __init__(self) -> None:
        self.used: list[tuple[int, Credentials]] = []
        self.failure: TunnelError | None = None
        self.refuses = False
        self.lines: list[str] = []
        self.log = Log(schedule=lambda _delay: None)
        self.log.write = lambda message, *_category: self.lines.append(message)  # type: ignore[method-assign]

    def use(self, number: int, credentials: Credentials) -> None:
        if self.refuses:
            raise IdentityError(IdentityFault.BAD_CERTIFICATE, "cannot be presented")
        self.used.append((number, credentials))

    def confirm(self) -> None:
        raise AssertionError

    def withdraw(self) -> None:
        raise AssertionError

    def accept_challenges(self, challenges: object) -> None:
        raise AssertionError

    def fail(self, error: TunnelError) -> None:
        self.failure = error


class Files:
    """A chain, a key and a bundle on disk."""

    def __init__(self, directory: Path) -> None:
        self.cert, self.key, self.bundle = (directory / name for name in ("cert.pem", "key.pem", "ca.pem"))
        self.bundle.write_bytes(pem(ROOT))

    def write(self, one: MadeCertificate) -> None:
        self.cert.write_bytes(pem(one))
        self.key.write_bytes(one.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def source(self, kept: RecordingSink) -> FileSource:
        return FileSource(KeyFiles(str(self.cert), str(self.key)), str(self.bundle), kept, kept.log, {})


def pem(one: MadeCertificate) -> bytes:
    return one.certificate.pem


def run(step: Callable[[], Awaitable[None]]) -> None:
    trio.run(step)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.write(make_certificate(issuer=ROOT, subject="one", key=key_of("p256", 30)))
    return made


def test_what_the_files_hold_is_published_at_start_and_at_each_reload(files: Files) -> None:
    kept = RecordingSink()
    source = files.source(kept)
    run(source.run)
    second = make_certificate(issuer=ROOT, subject="two", key=key_of("p256", 31))
    files.write(second)
    run(source.reload)
    run(source.reload)
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
        run(source.reload)
    assert [number for number, _ in kept.used] == [1]


def test_what_cannot_be_used_is_a_failed_reload_that_spends_no_number(files: Files) -> None:
    kept = RecordingSink()
    source = files.source(kept)
    run(source.run)
    kept.refuses = True
    with pytest.raises(IdentityError, match="cannot be presented"):
        run(source.reload)
    kept.refuses = False
    run(source.reload)
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
    run(FileSource(NoIdentity(), str(files.bundle), kept, kept.log, {}).run)
    assert kept.used == [(1, PkiCredentials((), None, (ROOT.certificate,)))]
    assert kept.lines == []


def test_without_a_bundle_the_systems_authorities_count(files: Files) -> None:
    kept = RecordingSink()
    run(FileSource(NoIdentity(), "", kept, kept.log, {"SSL_CERT_FILE": str(files.bundle), "SSL_CERT_DIR": "/nonexistent"}).run)
    assert kept.used == [(1, PkiCredentials((), None, (ROOT.certificate,)))]


def test_a_system_without_authorities_is_warned_of(files: Files, tmp_path: Path) -> None:
    kept = RecordingSink()
    nowhere = {"SSL_CERT_FILE": str(tmp_path / "none.pem"), "SSL_CERT_DIR": str(tmp_path / "none")}
    run(FileSource(NoIdentity(), "", kept, kept.log, nowhere).run)
    assert "no system certificate authorities" in kept.lines[0]
