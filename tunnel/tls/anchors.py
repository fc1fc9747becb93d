"""The trust anchors of one bundle, as OpenSSL's path builder takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import islice

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto

from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.x509 import check_anchor, find_extension, read_extensions
from tunnel.tls.facts import UNREADABLE
from tunnel.tls.path import PathDenied, build_path, describe_certificate, to_openssl

_MOST_RENAMED = 8  # each costs a signature, and a peer decides how many there are
_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Anchors:
    """The anchors that can be used, and why each of the others cannot."""

    usable: tuple[x509.Certificate, ...]
    subjects: tuple[bytes, ...]  # of these, encoded once: a bundle may hold hundreds, and a peer may ask often
    prepared: tuple[crypto.X509, ...]  # the same for the path builder
    refused: tuple[tuple[x509.Certificate, PeerDenied], ...]

    def build_path(self, path: Sequence[x509.Certificate], now: datetime) -> list[x509.Certificate]:
        """The path that leads from the leaf to one of them, both included; raises PeerDenied."""
        try:
            return build_path(self.prepared, path, now)
        except PathDenied as denied:
            if denied.reason is not Denial.UNKNOWN_AUTHORITY:
                raise
            if renamed := self._rename_for(path):
                with suppress(PeerDenied):
                    return build_path(renamed, path, now)
            raise self._find_refusal(path) or denied from None

    def _rename_for(self, path: Iterable[x509.Certificate]) -> list[crypto.X509]:
        """Those that certificates of `path` name as their issuer, under the identifiers that they name it by.

        A certificate may name the serial number and the key identifier of its issuer's certificate (RFC 5280, 4.2.1.1). After a
        renewal with the same name and key the anchor has others, which OpenSSL refuses and Go does not.
        """
        renamed = (
            _prepare(anchor, claim)
            for claim in filter(None, map(_parse_claim, path))
            for anchor, subject in zip(self.usable, self.subjects, strict=True)
            if subject == claim.subject
        )
        return list(islice(renamed, _MOST_RENAMED))

    def _find_refusal(self, path: Iterable[x509.Certificate]) -> PeerDenied | None:
        """Why the anchor that issued a certificate of `path` is not used; None when no such anchor was left out."""
        issuers = {_issuer_bytes(certificate) for certificate in path} - {b""} - set(self.subjects)
        for anchor, refusal in self.refused:
            if _subject_bytes(anchor) in issuers:
                return PeerDenied(refusal.reason, refusal.seen)  # a new one: each that is raised keeps its own traceback
        return None


@dataclass(frozen=True, slots=True)
class _Claim:
    """How a certificate names its issuer's certificate: by its subject, and perhaps its serial number and issuer."""

    subject: bytes
    serial: int | None
    issuer: x509.Name | None


def build_anchors(authorities: Iterable[x509.Certificate]) -> Anchors:
    """The anchors of a bundle; one that cannot be used leaves its neighbours alone."""
    usable, prepared, refused = [], [], []
    for number, authority in enumerate(authorities, 1):
        try:
            check_anchor(authority)
            prepared.append(_prepare(authority))
            usable.append(authority)
        except PeerDenied as denied:
            where = f"authority {number} of the bundle {describe_certificate(authority)}"
            refused.append((authority, PeerDenied(denied.reason, f"{where}: {denied.seen}")))
    return Anchors(tuple(usable), tuple(map(_subject_bytes, usable)), tuple(prepared), tuple(refused))


def _parse_claim(certificate: x509.Certificate) -> _Claim | None:
    try:
        found = find_extension(certificate, x509.AuthorityKeyIdentifier)
    except PeerDenied:
        return None
    if found is None:
        return None
    names = found.value.authority_cert_issuer or []
    issuer = next((one.value for one in names if isinstance(one, x509.DirectoryName)), None)
    return _Claim(_issuer_bytes(certificate), found.value.authority_cert_serial_number, issuer)


def _subject_bytes(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.subject.public_bytes()
    except UNREADABLE:
        return b""


def _issuer_bytes(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.issuer.public_bytes()
    except UNREADABLE:
        return b""


def _prepare(authority: x509.Certificate, claim: _Claim | None = None) -> crypto.X509:
    """The anchor as a certificate of its name, key and constraints only, which OpenSSL has nothing to object to.

    OpenSSL judges the extensions of an anchor, and takes the first of several with one name; a trust anchor is a name and a key
    (RFC 5280, 6.1.1 d). Path length and name constraints stay, as they only restrict. Nobody checks an anchor's signature. What
    cannot be rewritten, such as a serial number of 0, is taken as it is.
    """
    try:
        return to_openssl(_rewrite(authority, claim))
    except (PeerDenied, *UNREADABLE):
        return to_openssl(authority)


def _rewrite(authority: x509.Certificate, claim: _Claim | None) -> x509.Certificate:
    reading = read_extensions(authority)
    constraints = reading.find(x509.BasicConstraints)
    builder = x509.CertificateBuilder(
        issuer_name=(claim.issuer if claim else None) or authority.issuer,
        subject_name=authority.subject,
        public_key=authority.public_key(),  # check_anchor has looked at its kind
        serial_number=(claim.serial if claim else None) or authority.serial_number,
        not_valid_before=authority.not_valid_before_utc,
        not_valid_after=authority.not_valid_after_utc,
    )
    length = constraints.value.path_length if constraints is not None else None
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
    builder = builder.add_extension(_USAGE, critical=True)
    for kind in (x509.NameConstraints,) if claim else (x509.NameConstraints, x509.SubjectKeyIdentifier):
        kept = reading.find(kind)
        if kept is not None:
            builder = builder.add_extension(kept.value, critical=kept.critical)
    return builder.sign(_signer(), hashes.SHA256())


@cache
def _signer() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())
