"""A factory of revocation lists in raw DER: valid by default, and every field can be overridden."""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import SubjectKeyIdentifier

from tests.support.cert_factory import NOW, MadeCertificate
from tests.support.odd_certificates.raw_der import bits, context, extension, implicit, integer, oid, seq, time, tlv
from tunnel.pkix.crl import RevocationList, parse_revocation_list

BEGIN, END = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
AUTHORITY_KEY_ID, NUMBER, DELTA, PARTIAL = "2.5.29.35", "2.5.29.20", "2.5.29.27", "2.5.29.28"
REASON, ENTRY_ISSUER, UNKNOWN = "2.5.29.21", "2.5.29.29", "1.3.6.1.4.1.55555.1"
NUMBERED = extension(NUMBER, integer(1))
_ECDSA_SHA256 = seq(oid("1.2.840.10045.4.3.2"))


def entry(serial: int, *extensions: bytes, date: datetime = BEGIN) -> bytes:
    """One revoked certificate."""
    return seq(integer(serial), time(date), seq(*extensions) if extensions else b"")


def reason(code: int) -> bytes:
    return extension(REASON, tlv(0x0A, bytes([code])))


def encode_list(
    issuer: MadeCertificate,
    *revoked: int,
    begin: datetime = BEGIN,
    end: datetime | None = END,
    version: bytes = integer(1),
    extensions: Sequence[bytes] | None = (NUMBERED,),
    entries: Sequence[bytes] = (),
    more: bytes = b"",
    algorithm: bytes = _ECDSA_SHA256,
    has_key_id: bool = True,
    signer: MadeCertificate | None = None,  # None for the issuer
) -> bytes:
    """The DER of a list with these serial numbers or entries."""
    key_id = [extension(AUTHORITY_KEY_ID, seq(implicit(0, _key_id(issuer))))] if has_key_id and extensions is not None else []
    entries = (*map(entry, revoked), *entries)
    tbs = seq(
        version,
        algorithm,
        issuer.built.subject.public_bytes(),
        time(begin),
        time(end) if end is not None else b"",
        seq(*entries) if entries else b"",
        context(0, seq(*key_id, *extensions)) if extensions is not None else b"",
        more,
    )
    signature = (signer or issuer).key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return seq(tbs, algorithm, bits(signature))


def make_list(issuer: MadeCertificate, *revoked: int, **fields: object) -> RevocationList:
    """The parsed list."""
    return parse_revocation_list(encode_list(issuer, *revoked, **fields))  # type: ignore[arg-type]


def as_pem(encoded: bytes) -> bytes:
    return b"-----BEGIN X509 CRL-----\n" + encodebytes(encoded) + b"-----END X509 CRL-----\n"


def _key_id(issuer: MadeCertificate) -> bytes:
    return issuer.built.extensions.get_extension_for_class(SubjectKeyIdentifier).value.digest
