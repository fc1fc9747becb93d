"""PKCS#12 (RFC 7292): one file with a key, its certificate and the issuers."""

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
    """Return the key with its certificate, then the other certificates in stored order; raises IdentityError."""
    secret = password.encode("utf-8", "surrogateescape")
    # Programs encode an empty password in two ways: as no bytes, and as two zero bytes.
    store = _open(blob, secret) or (None if secret else _open(blob, None))
    if store is None:
        raise _refusal(blob, password)
    if store.key is None:
        raise IdentityError(IdentityFault.BAD_KEY, "no private key in the PKCS#12 file; expected a key with its certificate")
    own = [store.cert] if store.cert else []
    certificates = [entry.certificate.public_bytes(Encoding.DER) for entry in [*own, *store.additional_certs]]
    try:
        return make_material(map(parse_certificate, certificates), store.key)
    except WireError as error:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, "unreadable certificate in the PKCS#12 file") from error


def _open(blob: bytes, password: bytes | None) -> PKCS12KeyAndCertificates | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # about BER files, which are common and supported
            return load_pkcs12(blob, password)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None


def _refusal(blob: bytes, password: str) -> IdentityError:
    try:
        is_whole = len(split_sequences(blob)) == 1
    except WireError:
        is_whole = False
    if not is_whole:
        return IdentityError(IdentityFault.FORMAT, "damaged, truncated or not PKCS#12")
    problem = "wrong password" if password else "the empty password is wrong (--storepass sets another)"
    return IdentityError(IdentityFault.PASSWORD, f"{problem}, or the file is damaged")
