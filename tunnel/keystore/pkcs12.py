"""PKCS#12 (RFC 7292): one file with a key, its certificate and the issuers.

Knows how passwords are tried and what an unreadable file most likely means; must not know files. Modern and legacy
encryption, and none, are all the library's.
"""

from __future__ import annotations

import warnings

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12KeyAndCertificates, load_pkcs12

from tunnel.errors import IdentityError, IdentityFault, WireError
from tunnel.keystore.material import KeyMaterial, make_material
from tunnel.pkix.certificate import parse_certificate
from tunnel.pkix.der import split_sequences


def parse_pkcs12(blob: bytes, password: str) -> KeyMaterial:
    """The first key with its certificate, and the others in the order in which they are stored; raises IdentityError."""
    secret = password.encode("utf-8", "surrogateescape")
    # An empty password is written in two ways, as no bytes and as two zero bytes; programs differ in which they mean.
    store = _open(blob, secret) or (None if secret else _open(blob, None))
    if store is None:
        raise _refusal(blob, password)
    if store.key is None:
        raise IdentityError(IdentityFault.BAD_KEY, "a PKCS#12 file without a private key; wanted a key with its certificate")
    own = [store.cert] if store.cert else []
    certificates = [entry.certificate.public_bytes(Encoding.DER) for entry in [*own, *store.additional_certs]]
    try:
        return make_material(map(parse_certificate, certificates), store.key)
    except WireError as error:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, "a PKCS#12 file with a certificate that cannot be read") from error


def _open(blob: bytes, password: bytes | None) -> PKCS12KeyAndCertificates | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # said of files in BER, which are in use and are read all the same
            return load_pkcs12(blob, password)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None


def _refusal(blob: bytes, password: str) -> IdentityError:
    try:
        is_whole = len(split_sequences(blob)) == 1
    except WireError:
        is_whole = False
    if not is_whole:
        return IdentityError(IdentityFault.FORMAT, "not a whole PKCS#12 file: damaged, cut short, or something else")
    seen = "the password does not open it" if password else "the empty password does not open it, --storepass gives another"
    return IdentityError(IdentityFault.PASSWORD, f"{seen}; or it is damaged inside")
