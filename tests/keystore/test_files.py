"""Reading of files, and detection of the format of a keystore by extension or content."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12

from tests.support.keystore_files import VECTORS, chain_of, key_pem, openssl, pem_of, refusal_of
from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore import files
from tunnel.keystore.files import KeystoreFormat, detect_format
from tunnel.keystore.load import load_cert_and_key, load_keystore

CHAIN = chain_of("ed25519")
PEM = pem_of(CHAIN.leaf) + key_pem(CHAIN.leaf.key)
P12 = pkcs12.serialize_key_and_certificates(b"", CHAIN.leaf.key, CHAIN.leaf.built, None, NoEncryption())
PKCS7 = openssl("crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", "DER", stdin=PEM)

CONTENTS = {
    "PEM": (PEM, KeystoreFormat.PEM),
    "PEM after text": (b"Bag Attributes\n" + PEM, KeystoreFormat.PEM),
    "PEM after a byte order mark": (b"\xef\xbb\xbf" + PEM.replace(b"\n", b"\r\n"), KeystoreFormat.PEM),
    "PEM of openssl s_client": (b"CONNECTED(00000003)\n---\n", KeystoreFormat.PEM),
    "PEM after a digit": (b"0 s:CN = leaf\n" + PEM, KeystoreFormat.PEM),
    "PKCS#12": (P12, KeystoreFormat.PKCS12),
    "PKCS#12, short": (b"\x30\x82\x03\x10\x02\x01\x03", KeystoreFormat.PKCS12),
    "PKCS#12, long": (b"\x30\x83\x10\x00\x00\x02\x01\x03", KeystoreFormat.PKCS12),
    "PKCS#12, open length": (b"\x30\x80\x02\x01\x03", KeystoreFormat.PKCS12),
    "PKCS#12 with a line feed for a length": (b"\x30\x82\x0a\x0a\x02\x01\x03", KeystoreFormat.PKCS12),
    "a certificate in DER": (CHAIN.leaf.der, KeystoreFormat.DER),
    "PKCS#7": (PKCS7, KeystoreFormat.DER),
    "JKS": ((VECTORS / "p256.jks").read_bytes(), KeystoreFormat.JAVA),
    "JCEKS": ((VECTORS / "p256.jceks").read_bytes(), KeystoreFormat.JAVA),
}
EXTENSIONS = {
    KeystoreFormat.PEM: ["a.pem", "a.crt", "/a.d/b.p7b", "a.p7c", "A.PEM"],
    KeystoreFormat.PKCS12: ["a.p12", "a.pfx", "a.PFX"],
    KeystoreFormat.JAVA: ["a.jks", "a.jceks", "a.JcEkS"],
    KeystoreFormat.DER: ["a.der"],
}
UNKNOWN = ["keystore", "a.key", "/a.pem/b", ".pem", ""]


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize(("blob", "wanted"), CONTENTS.values(), ids=CONTENTS)
def test_without_a_known_extension_the_content_decides(path: str, blob: bytes, wanted: KeystoreFormat) -> None:
    assert detect_format(path, blob) is wanted


@pytest.mark.parametrize("wanted", KeystoreFormat)
def test_a_known_extension_decides_if_the_content_does_not(wanted: KeystoreFormat) -> None:
    for path in EXTENSIONS[wanted]:
        assert detect_format(path, b"") is wanted
        assert detect_format(path, b"nonsense") is wanted


@pytest.mark.parametrize(("blob", "seen"), CONTENTS.values(), ids=CONTENTS)
def test_an_extension_that_contradicts_the_content_is_refused(blob: bytes, seen: KeystoreFormat) -> None:
    for named, paths in EXTENSIONS.items():
        if named is seen:
            assert detect_format(paths[0], blob) is seen
            continue
        with pytest.raises(IdentityError, match=f"the extension means {named.value}, but the content is {seen.value}"):
            detect_format(paths[0], blob)


@pytest.mark.parametrize("blob", [b"", b"text", b"\x30", b"\x30\x82\x01", b"\x00" * 9, b"a -----BEGIN X-----"])
def test_an_unknown_format_is_refused_without_a_byte_of_it(blob: bytes) -> None:
    with pytest.raises(IdentityError, match="unable to guess file format") as refused:
        detect_format("keystore", blob)
    assert refused.value.reason is IdentityFault.FORMAT
    assert len(blob) < 2 or blob[:4].hex() not in str(refused.value)


@pytest.mark.parametrize("blob", [CHAIN.leaf.der, CHAIN.leaf.der + CHAIN.root.der, PKCS7])
@pytest.mark.parametrize("name", ["a.der", "keystore"])
def test_der_is_refused_because_it_contains_no_key(tmp_path: Path, blob: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(blob)
    reason, message = refusal_of(load_keystore, str(path), "")
    assert reason is IdentityFault.BAD_KEY
    assert "contains no private key" in message
    assert "--cert and --key" in message


@pytest.mark.parametrize("load", [load_keystore, load_cert_and_key])
def test_an_unreadable_file_is_named(tmp_path: Path, load) -> None:
    for path in (str(tmp_path / "none\n"), str(tmp_path), "a\x00b", ""):
        reason, message = refusal_of(load, path, "")
        assert reason is IdentityFault.FILE
        assert message.startswith(f"cannot read {path!a}: ")


def test_an_endless_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1000)
    reason, message = refusal_of(load_keystore, "/dev/zero", "")
    assert reason is IdentityFault.OVER_LIMIT
    assert message == "cannot read '/dev/zero': larger than 1000 bytes"


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.pem"
    path.write_bytes(PEM)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", len(PEM))
    assert len(load_keystore(str(path), "").chain) == 1
    monkeypatch.setattr(files, "MAX_FILE_BYTES", len(PEM) - 1)
    assert refusal_of(load_keystore, str(path), "")[0] is IdentityFault.OVER_LIMIT
