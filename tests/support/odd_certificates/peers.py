"""Stock TLS peers that present any certificate that OpenSSL can load, and the files that a proxy trusts them by."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.odd_certificates.factory import Made
from tests.support.odd_certificates.keys import loaded
from tests.support.odd_certificates.raw_der import element_size

VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}


def pem_of(certificates: Iterable[Made]) -> str:
    """The certificates as a PEM file has them."""
    return "".join(ssl.DER_cert_to_PEM_cert(one.der) for one in certificates)


def key_pem(made: Made) -> str:
    """The private key of a certificate; raises ValueError if the library refuses it."""
    return loaded(made.key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def peer_context(sent: tuple[Made, ...], path: Path, *, is_server: bool, version: str) -> ssl.SSLContext | None:
    """A context that presents the chain and accepts every peer; None if OpenSSL cannot load it or would send other bytes."""
    if any(element_size(one.der) != len(one.der) for one in sent):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        path.write_text(pem_of(sent) + key_pem(sent[0]))
        context.load_cert_chain(path)
    except (ssl.SSLError, ValueError):
        return None
    return context
