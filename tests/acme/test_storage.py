"""Stored files can be loaded again, are readable by the user only, and are replaced as a whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.issued_certificates import NAME, material
from tunnel.acme.material import encode_key, encode_material, new_key
from tunnel.acme.storage import Storage
from tunnel.config.acme import AcmeConfig
from tunnel.errors import IdentityError, IdentityFault
from tunnel.lazy_dataclass import replace

URL = "https://ca.test/dir"


@pytest.fixture
def config(tmp_path: Path) -> AcmeConfig:
    return AcmeConfig(NAME, "a@example.test", URL, tmp_path / "data" / "tunnel" / "acme")


def files(config: AcmeConfig) -> list[Path]:
    return [path for path in config.storage_dir.rglob("*") if path.is_file()]


def only_file(config: AcmeConfig) -> Path:
    (path,) = files(config)
    return path


def test_nothing_is_there_at_first(config: AcmeConfig) -> None:
    assert Storage(config).load() is None
    assert not config.storage_dir.exists()


def test_the_certificate_comes_back_with_its_key(config: AcmeConfig) -> None:
    for kept in (material(), material()):
        Storage(config).save(kept)
        found = Storage(config).load()
        assert found is not None
        assert found.chain == kept.chain
        assert encode_key(found.private_key) == encode_key(kept.private_key)


def test_the_account_stays_the_same(config: AcmeConfig) -> None:
    first = Storage(config).account_key()
    assert encode_key(Storage(config).account_key()) == encode_key(first)


@pytest.mark.parametrize(
    "other", [{"directory_url": "https://test.ca.test/dir"}, {"email": "b@example.test"}], ids=["authority", "address"]
)
def test_another_authority_or_address_is_another_account(config: AcmeConfig, other: dict[str, str]) -> None:
    first = Storage(config).account_key()
    assert encode_key(Storage(replace(config, **other)).account_key()) != encode_key(first)


def test_a_certificate_of_one_authority_is_never_taken_for_that_of_another(config: AcmeConfig) -> None:
    Storage(replace(config, directory_url="https://test.ca.test/dir")).save(material())
    assert Storage(config).load() is None


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077], ids=oct)
def test_files_are_readable_by_the_user_only(config: AcmeConfig, mask: int) -> None:
    before = os.umask(mask)
    try:
        Storage(config).account_key()
        Storage(config).save(material())
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(config)} == {0o600}
    for folder in (config.storage_dir, next(config.storage_dir.iterdir())):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_key_is_private_before_anybody_can_find_it(config: AcmeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    Storage(config).save(material())
    assert seen == [0o600, 0o700]  # the file before it has its name, then its folder


def test_a_failed_write_leaves_the_old_one_and_no_rubbish(config: AcmeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = material()
    Storage(config).save(kept)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(IdentityError, match=r"cannot write .*: no space left on device") as refused:
        Storage(config).save(material())
    assert refused.value.reason is IdentityFault.ACME
    found = Storage(config).load()
    assert found is not None
    assert found.chain == kept.chain
    assert len(files(config)) == 1


def test_a_folder_that_cannot_be_made_is_named(config: AcmeConfig) -> None:
    config.storage_dir.parent.parent.write_text("a file in the way")
    with pytest.raises(IdentityError, match=r"cannot (read|create) .*/data/tunnel/acme/.*: not a directory"):
        Storage(config).account_key()


WHOLE = encode_material(material())

BAD = {
    "empty": (b"", IdentityFault.BAD_CERTIFICATE),
    "rubbish": (b"rubbish", IdentityFault.BAD_CERTIFICATE),
    "cut": (WHOLE[:-40], IdentityFault.BAD_CERTIFICATE),
    "another name": (encode_material(material("other.example.test")), IdentityFault.BAD_CERTIFICATE),
    "no certificate": (encode_key(new_key()), IdentityFault.BAD_CERTIFICATE),
    "no key": (WHOLE[WHOLE.index(b"-----BEGIN CERT") :], IdentityFault.BAD_KEY),
    "another's key": (encode_key(new_key()) + WHOLE[WHOLE.index(b"-----BEGIN CERT") :], IdentityFault.BAD_KEY),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_what_is_not_what_was_kept_is_refused_with_its_path(config: AcmeConfig, content: bytes, reason: IdentityFault) -> None:
    Storage(config).save(material())
    path = only_file(config)
    path.write_bytes(content)
    with pytest.raises(IdentityError) as refused:
        Storage(config).load()
    assert refused.value.reason is reason
    assert str(path) in str(refused.value)
    assert "BEGIN" not in str(refused.value)


def test_an_account_that_cannot_be_read_is_not_replaced(config: AcmeConfig) -> None:
    Storage(config).account_key()
    only_file(config).write_bytes(b"rubbish")
    with pytest.raises(IdentityError, match="remove the file"):
        Storage(config).account_key()
    assert only_file(config).read_bytes() == b"rubbish"


def test_an_account_with_a_key_of_another_kind_is_not_replaced(config: AcmeConfig) -> None:
    Storage(config).account_key()
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    only_file(config).write_bytes(pem)
    with pytest.raises(IdentityError, match="remove the file"):
        Storage(config).account_key()
