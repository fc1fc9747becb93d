"""No error of a loader contains a byte of a damaged file."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from tests.support import jks_writer
from tests.support.keystore_files import chain_of, key_pem, openssl, pem_of
from tests.support.secret_canaries import DAMAGE, Damage, found_in, pieces_of
from tunnel.check.svid_files import read_authorities, read_path, read_public_key
from tunnel.errors import IdentityError, TunnelError
from tunnel.keystore.anchors import load_authorities
from tunnel.keystore.load import load_cert_and_key, load_keystore
from tunnel.policy.bundle import load_policy
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.jwks import parse_jwks
from tunnel.spiffe.jwt import parse_token

CHAIN = chain_of("p256")
CERTIFICATES = pem_of(CHAIN.leaf, CHAIN.intermediate, CHAIN.root)
PASSWORD = "storepass-canary"
KEYS = {
    "PKCS#8": key_pem(CHAIN.leaf.key),
    "SEC1": key_pem(CHAIN.leaf.key, PrivateFormat.TraditionalOpenSSL),
    "PKCS#1": key_pem(chain_of("rsa2048").leaf.key, PrivateFormat.TraditionalOpenSSL),
    "encrypted": key_pem(CHAIN.leaf.key, password=b"another"),
    "encrypted as of old": openssl("ec", "-aes128", "-passout", "pass:another", stdin=key_pem(CHAIN.leaf.key)),
}


def said_by(load: Callable[..., object], *arguments: object) -> str:
    """The repr of what was loaded; else the message, and all that a traceback would show but the lines of source."""
    try:
        return repr(load(*arguments))
    except TunnelError as error:
        chain: list[BaseException | None] = [error]
        while chain[-1] is not None:
            chain.append(chain[-1].__cause__ or (None if chain[-1].__suppress_context__ else chain[-1].__context__))
        return "\n".join(["".join(traceback.format_exception_only(one)) for one in chain if one] + [repr(error)])


def all_that_is_said(path: str, good: str) -> str:
    blob = Path(path).read_bytes()
    text = blob.decode("latin-1")
    said = [
        said_by(load_cert_and_key, good, path),
        said_by(load_cert_and_key, path, good),
        said_by(load_cert_and_key, path, path),
        said_by(load_authorities, path, {}),
        said_by(read_path, path),
        said_by(read_public_key, path),
        said_by(read_authorities, path, TrustDomain("a.test")),
        said_by(load_policy, path),
        said_by(parse_jwks, blob),
        said_by(parse_token, text),
    ]
    for ending in ("", ".pem", ".p12", ".jks", ".jceks", ".der", ".crt"):
        os.link(path, path + "x" + ending)
        said.append(said_by(load_keystore, path + "x" + ending, PASSWORD))
        os.unlink(path + "x" + ending)
    return "\n".join(said)


@pytest.mark.parametrize("damage", [*DAMAGE.values(), lambda pem: pem], ids=[*DAMAGE, "undamaged"])
def test_a_pem_key_is_never_quoted(tmp_path: Path, damage: Damage) -> None:
    good, path = tmp_path / "good.pem", tmp_path / "bad"
    good.write_bytes(CERTIFICATES)
    for kind, key in KEYS.items():
        for blob in (damage(key), CERTIFICATES + damage(key), damage(key) + CERTIFICATES):
            path.write_bytes(blob)
            said = all_that_is_said(str(path), str(good))
            assert not found_in(said, pieces_of(key)), kind
            assert PASSWORD not in said


def stores() -> dict[str, bytes]:
    key, leaf = CHAIN.leaf.key, CHAIN.leaf
    encryption = BestAvailableEncryption(PASSWORD.encode())
    return {
        "PKCS#12": serialize_key_and_certificates(b"canary-alias", key, leaf.built, None, encryption),
        "JKS": jks_writer.store([jks_writer.key_entry("canary-alias", leaf.key_der, [leaf.der], PASSWORD)], PASSWORD),
        "a key in DER": leaf.key_der,
    }


@pytest.mark.parametrize("kind", stores())
def test_a_binary_store_is_never_quoted(tmp_path: Path, kind: str) -> None:
    store = stores()[kind]
    good, path = tmp_path / "good.pem", tmp_path / "bad"
    good.write_bytes(CERTIFICATES)
    pieces = pieces_of(CHAIN.leaf.key_der) | pieces_of(store[-40:]) | {"canary-alias"}
    for at in [*range(0, len(store), max(len(store) // 24, 1)), len(store)]:
        for blob in (store[:at], store[:at] + bytes([~store[at % len(store)] & 0xFF]) + store[at + 1 :]):
            path.write_bytes(blob)
            said = all_that_is_said(str(path), str(good))
            assert not found_in(said, pieces), at
            assert PASSWORD not in said
    path.write_bytes(store)
    assert PASSWORD not in said_by(load_keystore, str(path), PASSWORD + "-wrong")


@pytest.mark.parametrize(
    "document",
    [
        b'{"keys": [{"kty": "EC", "crv": "P-256", "kid": "a", "d": "canary-secret"}',
        b'{"keys": {"kty": "oct", "k": "canary-secret"}}',
        b'{"keys": [], "keys": "canary-secret"}',
        b'["canary-secret"]',
        b'"canary-secret\xff"',
        b"canary-secret",
        "{canary-secret}".encode("utf-16"),
    ],
)
def test_a_damaged_jwks_is_never_quoted(document: bytes) -> None:
    with pytest.raises(IdentityError) as refused:
        parse_jwks(document)
    assert "canary" not in str(refused.value)


def test_the_cause_of_an_error_contains_no_text_of_a_file(tmp_path: Path) -> None:
    """A traceback must not contain a key."""
    path = tmp_path / "key"
    path.write_bytes(KEYS["PKCS#8"].replace(b"\n", b"\\n"))
    with pytest.raises(IdentityError) as refused:
        load_cert_and_key(str(path), str(path))
    text = "".join(traceback.format_exception(refused.value))
    assert not found_in(text, pieces_of(KEYS["PKCS#8"]))
