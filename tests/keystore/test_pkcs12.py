"""PKCS#12 with each encryption; a wrong password and a damaged file have different errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, pkcs12
from hypothesis import given
from hypothesis import strategies as st

from tests.support import cert_factory
from tests.support.keystore_files import STORE_PASSWORD, VECTORS, chain_of, is_pair, key_pem, openssl, pem_of, refusal_of
from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore.load import load_keystore
from tunnel.keystore.pkcs12 import parse_pkcs12
from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.pkix.strength import read_public_key

CHAIN = chain_of("p256")
KINDS = ["p256", "p384", "p521", "ed25519", "rsa2048"]
LEGACY = {  # what programs of old wrote
    "RC2 and 3DES": ["-legacy"],
    "3DES": ["-legacy", "-descert"],
    "AES": [],
    "no MAC": ["-nomac"],
    "no encryption": ["-keypbe", "NONE", "-certpbe", "NONE"],
    "neither": ["-keypbe", "NONE", "-certpbe", "NONE", "-nomac"],
}


def exported(folder: Path, password: str, *options: str, chain=CHAIN) -> bytes:
    """The output of the openssl command for a chain and its key."""
    (folder / "in.pem").write_bytes(key_pem(chain.leaf.key) + pem_of(chain.leaf, chain.intermediate, chain.root))
    return openssl("pkcs12", "-export", "-in", str(folder / "in.pem"), "-passout", f"pass:{password}", *options)


def ours(certificate: x509.Certificate) -> Certificate:
    return parse_certificate(certificate.public_bytes(Encoding.DER))


def stored(password: bytes | None, *, key=CHAIN.leaf.key, certificate=CHAIN.leaf.built, others=()) -> bytes:
    """The output of the library for any parts, matching or not."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return pkcs12.serialize_key_and_certificates(b"name", key, certificate, others or None, encryption)


@pytest.mark.parametrize("password", ["", "secret", "pässwörd"])
@pytest.mark.parametrize("options", LEGACY.values(), ids=LEGACY)
def test_files_of_openssl_are_read(tmp_path: Path, options: list[str], password: str) -> None:
    assert is_pair(parse_pkcs12(exported(tmp_path, password, *options), password), CHAIN)


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_type_is_read(tmp_path: Path, kind: str) -> None:
    chain = chain_of(kind)
    path = tmp_path / "store.P12"
    path.write_bytes(exported(tmp_path, "secret", chain=chain))
    assert is_pair(load_keystore(str(path), "secret"), chain)


@pytest.mark.parametrize("password", [b"secret", None])
def test_the_issuers_keep_the_order_in_which_they_are_stored(password: bytes | None) -> None:
    issuers = [CHAIN.intermediate.built, CHAIN.root.built]
    text = (password or b"").decode()
    for others in (issuers, issuers[::-1]):
        assert list(parse_pkcs12(stored(password, others=others), text).chain) == list(map(ours, [CHAIN.leaf.built, *others]))


def test_what_keytool_wrote_is_read() -> None:
    material = load_keystore(str(VECTORS / "p256-keytool.p12"), STORE_PASSWORD)
    assert len(material.chain) == 2


def test_a_file_with_indefinite_lengths_is_read_without_a_warning(tmp_path: Path) -> None:
    """BER: the outer length is indefinite, as some programs write it."""
    der = exported(tmp_path, "secret")
    header = 4
    assert der[:2] == b"\x30\x82"
    path = tmp_path / "store"
    path.write_bytes(b"\x30\x80" + der[header:] + b"\x00\x00")
    assert is_pair(load_keystore(str(path), "secret"), CHAIN)


@pytest.mark.parametrize(("right", "given_one"), [("secret", "another"), ("secret", ""), ("", "secret"), ("secret", "s\udcff")])
def test_a_wrong_password_is_named_as_such(tmp_path: Path, right: str, given_one: str) -> None:
    path = tmp_path / "store.p12"
    path.write_bytes(exported(tmp_path, right))
    reason, message = refusal_of(load_keystore, str(path), given_one)
    assert reason is IdentityFault.PASSWORD
    assert message.startswith(f"{str(path)!a}: {'wrong password' if given_one else 'the empty password is wrong'}")
    assert ("--storepass" in message) == (not given_one)
    assert not given_one or given_one not in message


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (stored(None, key=None), "no private key in"),
        (stored(None, key=None, certificate=None, others=[CHAIN.root.built]), "no private key in"),
        (stored(None, certificate=None), "no certificate for the private key"),
        (stored(None, certificate=None, others=[CHAIN.root.built]), "matches none of the"),
        (
            stored(b"x", key=cert_factory.key_of("p224"), certificate=cert_factory.leaf(key=cert_factory.key_of("p224")).built),
            "weak-key",
        ),
    ],
)
def test_a_store_that_lacks_a_part_is_refused(blob: bytes, said: str) -> None:
    with pytest.raises(IdentityError, match=said):
        parse_pkcs12(blob, "x" if "weak" in said else "")


def test_a_truncated_file_is_damaged_and_not_a_wrong_password(tmp_path: Path) -> None:
    whole = exported(tmp_path, "secret")
    for cut in range(len(whole)):
        with pytest.raises(IdentityError) as refused:
            parse_pkcs12(whole[:cut], "secret")
        assert refused.value.reason is IdentityFault.FORMAT


PLAIN = stored(None, others=[CHAIN.root.built])


@given(st.integers(0, len(PLAIN) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing_that_counts(at: int, change: int) -> None:
    noisy = bytearray(PLAIN)
    noisy[at] ^= change
    try:
        material = parse_pkcs12(bytes(noisy), "")
    except IdentityError:
        return
    assert material.private_key.public_key() == CHAIN.leaf.key.public_key()
    assert read_public_key(material.chain[0].key_info) == CHAIN.leaf.key.public_key()


@given(st.binary(max_size=300), st.text(max_size=4))
def test_noise_is_refused(blob: bytes, password: str) -> None:
    with pytest.raises(IdentityError):
        parse_pkcs12(blob, password)
