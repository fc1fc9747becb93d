"""JKS and JCEKS, the keystores of older Java programs.

Knows which entry of a store is ours, and is the one place that knows pyjks, an optional extra; must not know files. The
key is that of the first private key entry, in the file's order, which the store's password opens; the chain is that
entry's own. Certificates that the store merely trusts are passed over, though they may stand first: one of them would be
taken for the leaf, and a key is never used with a certificate that is not its own.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tunnel.errors import IdentityError, IdentityFault, WireError
from tunnel.keystore.material import KeyMaterial, make_material
from tunnel.pkix.certificate import Certificate, parse_certificate

_WHITENING = b"Mighty Aphrodite"  # what Java puts between the password and the store when it makes the digest
_DIGEST_BYTES = 20
# What pyjks and the libraries below it let through, beside their own errors, when a store holds what they do not expect.
_STUMBLES = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, OSError, AssertionError, struct.error)
_CONVERT = "keytool -importkeystore -srckeystore OLD.jks -destkeystore NEW.p12 -deststoretype PKCS12"


def parse_java(blob: bytes, password: str) -> KeyMaterial:
    """The first private key that the password opens, with its own chain; raises IdentityError."""
    _check_integrity(blob, password)
    entries = _key_entries(blob)
    if not entries:
        raise IdentityError(IdentityFault.BAD_KEY, "a Java keystore without a private key; wanted a key with its certificates")
    entry = next((entry for entry in entries if _opens(entry, password)), None)
    if entry is None:
        raise IdentityError(
            IdentityFault.PASSWORD,
            f"the store's password opens none of its private keys ({len(entries)}); give a key the store's password with"
            " keytool -keypasswd",
        )
    return make_material(_chain(entry), _key(entry))


def _check_integrity(blob: bytes, password: str) -> None:
    """The password is right and no byte has changed; so nothing but what was once written whole is parsed."""
    if not password:
        raise IdentityError(IdentityFault.PASSWORD, "a Java keystore cannot be read without its password; give --storepass")
    body, digest = blob[:-_DIGEST_BYTES], blob[-_DIGEST_BYTES:]
    secret = password.encode("utf-16-be", "surrogatepass")
    if hashlib.sha1(secret + _WHITENING + body, usedforsecurity=False).digest() != digest:
        raise IdentityError(IdentityFault.PASSWORD, "the password is not this Java keystore's; or it is damaged or cut short")


def _library() -> tuple[Any, tuple[type[Exception], ...]]:
    """pyjks, and everything that it raises."""
    try:
        import jks
        from pyasn1.error import PyAsn1Error
    except ImportError:
        raise IdentityError(
            IdentityFault.FORMAT,
            f"a Java keystore is read with the extra spiffe-tunnel[jks], which is not installed; or convert it with {_CONVERT}",
        ) from None
    logging.getLogger("javaobj").disabled = True  # it writes to standard error whatever it stumbles over
    return jks, (jks.KeystoreException, PyAsn1Error, *_STUMBLES)


def _key_entries(blob: bytes) -> list[Any]:
    jks, refusals = _library()
    try:
        store = jks.KeyStore.loads(blob, None, try_decrypt_keys=False)
    except refusals:
        raise IdentityError(
            IdentityFault.FORMAT, f"a Java keystore with something in it that is not understood; convert it with {_CONVERT}"
        ) from None
    return [entry for entry in store.entries.values() if isinstance(entry, jks.PrivateKeyEntry)]


def _opens(entry: Any, password: str) -> bool:
    _jks, refusals = _library()
    try:
        entry.decrypt(password)
    except refusals:
        return False
    return True


def _key(entry: Any) -> PrivateKeyTypes:
    try:
        return load_der_private_key(entry.pkey_pkcs8, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError(
            IdentityFault.BAD_KEY, f"the private key of entry {entry.alias!a} cannot be read; wanted RSA, ECDSA or Ed25519"
        ) from None


def _chain(entry: Any) -> list[Certificate]:
    try:
        return [parse_certificate(der) for _type, der in entry.cert_chain]
    except WireError as error:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"entry {entry.alias!a}: {error}") from error
