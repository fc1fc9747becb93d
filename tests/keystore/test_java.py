"""What keytool wrote is read with its password and pyjks; what does not belong to a key is never presented with it."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import jks
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import STORE_PASSWORD, VECTORS, chain_of, is_pair, refusal_of

from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore.java import parse_java
from tunnel.keystore.load import load_keystore

CHAIN = chain_of("p256")
OTHER = chain_of("p384")
WHOLE = (VECTORS / "trusted-first.jks").read_bytes()


def vector(name: str) -> str:
    return str(VECTORS / name)


def entry(alias: str, chain=CHAIN, certificates=None) -> jks.PrivateKeyEntry:
    """A key entry; with certificates of another chain if told."""
    ders = [made.der for made in (certificates or chain).__dict__.values()]
    return jks.PrivateKeyEntry.new(alias, ders, chain.leaf.key_der)


def store_of(*entries: jks.PrivateKeyEntry, password: str = STORE_PASSWORD) -> bytes:
    """What pyjks writes."""
    return jks.KeyStore.new("jks", entries).saves(password)


def sealed(body: bytes, password: str = STORE_PASSWORD) -> bytes:
    """Any body with the digest that Java wants after it."""
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


def test_a_store_is_known_by_its_first_bytes_too(tmp_path: Path) -> None:
    for name in ("p256.jks", "p256.jceks"):
        path = tmp_path / f"{name}.keystore"
        path.write_bytes((VECTORS / name).read_bytes())
        assert len(load_keystore(str(path), STORE_PASSWORD).chain) == 2


@pytest.mark.parametrize(
    ("name", "password", "reason", "said"),
    [
        ("p256.jks", "wrong", IdentityFault.PASSWORD, "the password is not this Java keystore's"),
        ("p256.jceks", "wröng\udcff", IdentityFault.PASSWORD, "the password is not this Java keystore's"),
        ("p256.jceks", "", IdentityFault.PASSWORD, "give --storepass"),
        (
            "key-password.jks",
            STORE_PASSWORD,
            IdentityFault.PASSWORD,
            r"opens none of its private keys \(1\).*keytool -keypasswd",
        ),
        ("key-password.jceks", STORE_PASSWORD, IdentityFault.PASSWORD, r"opens none of its private keys \(1\)"),
        ("trusted-only.jks", STORE_PASSWORD, IdentityFault.BAD_KEY, "without a private key"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, password: str, reason: IdentityFault, said: str) -> None:
    with pytest.raises(IdentityError, match=said) as refused:
        load_keystore(vector(name), password)
    assert refused.value.reason is reason
    assert not password or password not in str(refused.value)


def test_the_first_key_that_the_password_opens_counts() -> None:
    shut = entry("first", OTHER)
    shut.encrypt("another password")
    assert is_pair(parse_java(store_of(shut, entry("second"), entry("third", OTHER)), STORE_PASSWORD), CHAIN)


def test_a_password_beyond_ascii_opens_a_store() -> None:
    assert is_pair(parse_java(store_of(entry("one"), password="pässwörd"), "pässwörd"), CHAIN)


def test_a_key_whose_chain_is_another_ones_is_never_used() -> None:
    with pytest.raises(IdentityError, match="belongs to none of the certificates"):
        parse_java(store_of(entry("one", CHAIN, certificates=OTHER)), STORE_PASSWORD)


def test_a_key_or_a_certificate_that_cannot_be_read_is_refused_by_its_entry() -> None:
    odd_key = jks.PrivateKeyEntry.new("odd\n", [CHAIN.leaf.der], CHAIN.leaf.key_der)
    odd_key.pkey_pkcs8 = odd_key._pkey_pkcs8 = CHAIN.leaf.key_der[:-30] + bytes(30)
    with pytest.raises(IdentityError, match=r"entry 'odd\\n' cannot be read") as refused:
        parse_java(store_of(odd_key), STORE_PASSWORD)
    assert refused.value.reason is IdentityFault.BAD_KEY
    odd_certificate = jks.PrivateKeyEntry.new("odd", [b"certificate"], CHAIN.leaf.key_der)
    with pytest.raises(IdentityError, match="entry 'odd': ") as refused:
        parse_java(store_of(odd_certificate), STORE_PASSWORD)
    assert refused.value.reason is IdentityFault.BAD_CERTIFICATE


def test_a_store_cut_anywhere_or_changed_in_a_byte_is_refused() -> None:
    for at in range(len(WHOLE)):
        for blob in (WHOLE[:at], WHOLE[:at] + bytes([WHOLE[at] ^ 1]) + WHOLE[at + 1 :]):
            with pytest.raises(IdentityError):
                parse_java(blob, STORE_PASSWORD)


BODIES = [(VECTORS / name).read_bytes()[:-20] for name in ("secret.jceks", "trusted-first.jks")]


@settings(max_examples=50)  # JCEKS takes its time, by design
@given(st.sampled_from(BODIES), st.data())
def test_a_store_with_the_right_digest_over_nonsense_is_refused_in_silence(body: bytes, data: st.DataObject) -> None:
    """Somebody who knows the password wrote it: still no other exception, and nothing on standard error."""
    at = data.draw(st.integers(0, len(body) - 1))
    noisy = body[:at] + data.draw(st.binary(min_size=1, max_size=4)) + body[at + 1 :]
    try:
        material = parse_java(sealed(data.draw(st.sampled_from([noisy, body[:at]]))), STORE_PASSWORD)
    except IdentityError:
        return
    assert len(material.chain) >= 1


def test_the_java_parser_is_silent() -> None:
    load_keystore(vector("secret.jceks"), STORE_PASSWORD)
    assert logging.getLogger("javaobj").disabled


def test_without_the_library_the_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jks", None)
    reason, message = refusal_of(load_keystore, vector("p256.jks"), STORE_PASSWORD)
    assert reason is IdentityFault.FORMAT
    assert "spiffe-tunnel[jks]" in message
    assert "keytool -importkeystore -srckeystore OLD.jks -destkeystore NEW.p12 -deststoretype PKCS12" in message
    assert "\n" not in message


def test_the_library_is_loaded_for_java_only_and_without_a_warning() -> None:
    script = (
        "import sys, tunnel.keystore.load as load; assert 'jks' not in sys.modules;"
        f"load.load_keystore({vector('p256.jks')!r}, {STORE_PASSWORD!r}); assert 'jks' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
