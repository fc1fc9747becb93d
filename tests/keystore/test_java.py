"""Keystores of keytool are read with their password; a key is used with its own certificates only."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import jks_writer
from tests.support.keystore_files import STORE_PASSWORD, VECTORS, chain_of, is_pair, refusal_of
from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore import java
from tunnel.keystore.java import parse_java
from tunnel.keystore.load import load_keystore

CHAIN = chain_of("p256")
OTHER = chain_of("p384")
WHOLE = (VECTORS / "trusted-first.jks").read_bytes()


def vector(name: str) -> str:
    return str(VECTORS / name)


def entry(alias: str, chain=CHAIN, certificates=None, *, key: bytes = b"", password: str = STORE_PASSWORD) -> bytes:
    """A key entry, optionally with certificates of another chain or other bytes as key."""
    ders = [made.der for made in (certificates or chain).__dict__.values()]
    return jks_writer.key_entry(alias, key or chain.leaf.key_der, ders, password)


def store_of(*entries: bytes, password: str = STORE_PASSWORD) -> bytes:
    """A store in JKS."""
    return jks_writer.store(entries, password)


def sealed(body: bytes, password: str = STORE_PASSWORD) -> bytes:
    """A body followed by the digest of Java."""
    return body + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("p256.jks", ec.EllipticCurvePrivateKey),
        ("p256.jceks", ec.EllipticCurvePrivateKey),
        ("rsa.jks", rsa.RSAPrivateKey),
        ("rsa.jceks", rsa.RSAPrivateKey),
        ("ed25519.jceks", ed25519.Ed25519PrivateKey),
        ("secret.jceks", ec.EllipticCurvePrivateKey),
        ("trusted-first.jks", ec.EllipticCurvePrivateKey),
        ("trusted-first.jceks", ec.EllipticCurvePrivateKey),
    ],
)
def test_what_keytool_wrote_is_read(name: str, kind: type) -> None:
    material = load_keystore(vector(name), STORE_PASSWORD)
    assert isinstance(material.private_key, kind)
    subjects = [certificate.subject.describe() for certificate in material.chain]
    assert subjects == [
        f"CN={name.split('.')[0].replace('secret', 'p256').replace('trusted-first', 'p256')}",
        "CN=keystore authority",
    ]


def test_a_store_is_detected_by_its_first_bytes_too(tmp_path: Path) -> None:
    for name in ("p256.jks", "p256.jceks"):
        path = tmp_path / f"{name}.keystore"
        path.write_bytes((VECTORS / name).read_bytes())
        assert len(load_keystore(str(path), STORE_PASSWORD).chain) == 2


@pytest.mark.parametrize(
    ("name", "password", "reason", "said"),
    [
        ("p256.jks", "mistaken", IdentityFault.PASSWORD, "wrong password for the Java keystore"),
        ("p256.jceks", "wröng\udcff", IdentityFault.PASSWORD, "wrong password for the Java keystore"),
        ("p256.jceks", "", IdentityFault.PASSWORD, "expected --storepass"),
        (
            "key-password.jks",
            STORE_PASSWORD,
            IdentityFault.PASSWORD,
            r"decrypts none of the 1 private keys.*keytool -keypasswd",
        ),
        ("key-password.jceks", STORE_PASSWORD, IdentityFault.PASSWORD, r"decrypts none of the 1 private keys"),
        ("trusted-only.jks", STORE_PASSWORD, IdentityFault.BAD_KEY, "no private key in the Java keystore"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, password: str, reason: IdentityFault, said: str) -> None:
    with pytest.raises(IdentityError, match=said) as refused:
        load_keystore(vector(name), password)
    assert refused.value.reason is reason
    assert not password or password not in str(refused.value)


def test_the_first_key_that_the_password_decrypts_is_used() -> None:
    shut = entry("first", OTHER, password="another password")
    assert is_pair(parse_java(store_of(shut, entry("second"), entry("third", OTHER)), STORE_PASSWORD), CHAIN)


def test_a_password_beyond_ascii_opens_a_store() -> None:
    store = store_of(entry("one", password="pässwörd"), password="pässwörd")
    assert is_pair(parse_java(store, "pässwörd"), CHAIN)


def test_a_store_of_version_1_is_read() -> None:
    """Version 1 has no certificate types."""
    certificates = [made.der for made in CHAIN.__dict__.values()]
    one = jks_writer.key_entry("one", CHAIN.leaf.key_der, certificates, STORE_PASSWORD, version=1)
    assert is_pair(parse_java(jks_writer.store([one], STORE_PASSWORD, version=1), STORE_PASSWORD), CHAIN)


def test_a_key_with_another_chain_is_never_used() -> None:
    with pytest.raises(IdentityError, match="matches none of the"):
        parse_java(store_of(entry("one", CHAIN, certificates=OTHER)), STORE_PASSWORD)


def test_an_unreadable_key_or_certificate_is_refused_with_its_number() -> None:
    odd_key = entry("odd\n", key=CHAIN.leaf.key_der[:-30] + bytes(30))
    with pytest.raises(IdentityError, match="unreadable private key in entry 1") as refused:
        parse_java(store_of(odd_key), STORE_PASSWORD)
    assert refused.value.reason is IdentityFault.BAD_KEY
    odd_certificate = jks_writer.key_entry("odd", CHAIN.leaf.key_der, [b"certificate"], STORE_PASSWORD)
    with pytest.raises(IdentityError, match="unreadable certificate in entry 1") as refused:
        parse_java(store_of(odd_certificate), STORE_PASSWORD)
    assert refused.value.reason is IdentityFault.BAD_CERTIFICATE


def test_a_salt_of_two_equal_halves_is_changed_as_in_java() -> None:
    """OpenJDK's PBES1Core: [a, b, c, d] becomes [d, a, b, d]."""
    password, half = b"secret", bytes((1, 2, 3, 4))
    assert java._derive(password, half + half, 3) == java._derive(password, bytes((4, 1, 2, 4)) + half, 3)


def test_more_iterations_than_java_allows_are_refused() -> None:
    assert java._decrypt_by_triple_des(bytes(16), "secret", bytes(8), 5_000_001) is None


def test_a_truncated_or_changed_store_is_refused() -> None:
    for at in range(len(WHOLE)):
        for blob in (WHOLE[:at], WHOLE[:at] + bytes([WHOLE[at] ^ 1]) + WHOLE[at + 1 :]):
            with pytest.raises(IdentityError):
                parse_java(blob, STORE_PASSWORD)


BODIES = [(VECTORS / name).read_bytes()[:-20] for name in ("secret.jceks", "trusted-first.jks")]


@settings(max_examples=50)  # JCEKS takes its time, by design
@given(st.sampled_from(BODIES), st.data())
def test_a_store_with_the_right_digest_over_noise_is_refused_quietly(body: bytes, data: st.DataObject) -> None:
    """A store written with the right password raises no other exception and prints nothing to standard error."""
    at = data.draw(st.integers(0, len(body) - 1))
    noisy = body[:at] + data.draw(st.binary(min_size=1, max_size=4)) + body[at + 1 :]
    try:
        material = parse_java(sealed(data.draw(st.sampled_from([noisy, body[:at]]))), STORE_PASSWORD)
    except IdentityError:
        return
    assert len(material.chain) >= 1


def test_an_unsupported_store_error_names_the_conversion() -> None:
    reason, message = refusal_of(parse_java, sealed(WHOLE[:8] + bytes(3) + b"\x01" + bytes(3) + b"\x09"), STORE_PASSWORD)
    assert reason is IdentityFault.FORMAT
    assert "keytool -importkeystore -srckeystore OLD.jks -destkeystore NEW.p12 -deststoretype PKCS12" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["JKS", "JCEKS"])
@pytest.mark.parametrize("algorithm", [["-keyalg", "RSA", "-keysize", "2048"], ["-keyalg", "EC", "-groupname", "secp384r1"]])
def test_a_store_of_the_local_keytool_is_read(tmp_path: Path, kind: str, algorithm: list[str]) -> None:
    keytool = shutil.which("keytool")
    if keytool is None:
        pytest.skip("keytool is missing")
    path = tmp_path / "made"
    shared = ["-keystore", str(path), "-storetype", kind, "-storepass", STORE_PASSWORD, "-keypass", STORE_PASSWORD]
    secret = [[keytool, "-genseckey", "-alias", "a", "-keyalg", "AES", "-keysize", "128", *shared]] if kind == "JCEKS" else []
    pair = [keytool, "-genkeypair", "-alias", "own", "-dname", "CN=made by keytool", *algorithm, *shared]
    for argv in [*secret, pair]:
        done = subprocess.run(argv, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    (leaf,) = load_keystore(str(path), STORE_PASSWORD).chain
    assert leaf.subject.describe() == "CN=made by keytool"
