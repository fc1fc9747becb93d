"""A test authority, and the files of its certificates.

Dates are real, because other programs check them against the wall clock.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.support.processes import LIMIT
from tests.support.requirements import program
from tests.support.workloads import Identity

FOR_SERVERS = (ExtendedKeyUsageOID.SERVER_AUTH,)
FOR_CLIENTS = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_KEYS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
KINDS = tuple(_KEYS)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Signer:
    """An authority: its certificate, its key, and its intermediates, which its leaves send."""

    certificate: x509.Certificate
    key: Any
    path: tuple[x509.Certificate, ...] = ()


@dataclass(frozen=True)
class Files(Identity):
    """A certificate and its key in files: chain and key apart, or in one file."""

    combined: Path
    leaf: x509.Certificate

    def pin(self, algorithm: str = "sha256") -> str:
        """The digest of its public key, in the form of the pin flags."""
        key = self.leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"{algorithm}:{base64.b64encode(hashlib.new(algorithm.lower(), key).digest()).decode()}"

    def pkcs12(self, password: str, *flags: str) -> Path:
        """The same in PKCS#12, written by the openssl command."""
        path = self.combined.with_suffix(f".{len(flags)}.p12")
        argv = ["pkcs12", "-export", "-in", str(self.combined), "-out", str(path), "-passout", f"pass:{password}", *flags]
        subprocess.run([program("openssl"), *argv], check=True, capture_output=True, timeout=LIMIT)
        return path


class Pki:
    """A root, an intermediate, and leaves in files below a directory."""

    def __init__(self, directory: Path, name: str = "pki", *, kind: str = "p256") -> None:
        self.directory = directory / name
        self.directory.mkdir()
        self.root = self.authority(f"{name} root", None, kind=kind)
        self.middle = self.authority(f"{name} intermediate", self.root, kind=kind)
        self.cacert = self.bundle("ca", self.root)

    def authority(self, name: str, issuer: Signer | None, *, kind: str = "p256", key: Any = None, **fields: Any) -> Signer:
        """An authority below another one, or a root."""
        key = key or _KEYS[kind]()
        certificate = _sign(_subject(name), key, issuer, [(x509.BasicConstraints(True, None), True), (_SIGNS, True)], **fields)
        return Signer(certificate, key, (certificate, *issuer.path) if issuer else ())

    def bundle(self, name: str, *signers: Signer) -> Path:
        """The certificates of authorities in one file."""
        path = self.directory / f"{name}.pem"
        replace(path, b"".join(_pem(signer.certificate) for signer in signers))
        return path

    def revocation_list(self, name: str, signer: Signer, *revoked: x509.Certificate, ends_in: timedelta = HOUR) -> Path:
        """The revocation list of an authority in a file."""
        now, path = datetime.now(UTC), self.directory / f"{name}.crl"
        builder = x509.CertificateRevocationListBuilder().issuer_name(signer.certificate.subject)
        builder = builder.last_update(now - 2 * HOUR).next_update(now + ends_in)
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        replace(path, builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return path

    def leaf(
        self,
        name: str,
        *,
        kind: str = "p256",
        issuer: Signer | None = None,
        is_self_signed: bool = False,
        units: Sequence[str] = (),
        dns: Sequence[str] = (),
        ips: Sequence[str] = (),
        uris: Sequence[str] = (),
        purposes: Sequence[ObjectIdentifier] = (*FOR_SERVERS, *FOR_CLIENTS),
        file: str = "",
        **fields: Any,
    ) -> Files:
        """A leaf of the intermediate (or another issuer), in files with its name."""
        key = _KEYS[kind]()
        signer = None if is_self_signed else issuer or self.middle
        names: list[x509.GeneralName] = [x509.DNSName(one) for one in dns]
        names += [x509.IPAddress(ip_address(one)) for one in ips]
        names += [x509.UniformResourceIdentifier(one) for one in uris]
        extensions: list[tuple[x509.ExtensionType, bool]] = [(x509.BasicConstraints(False, None), True)]
        if names:
            extensions.append((x509.SubjectAlternativeName(names), False))
        if purposes:
            extensions.append((x509.ExtendedKeyUsage(purposes), False))
        certificate = _sign(_subject(name, units), key, signer, extensions, **fields)
        return self._write(file or f"{name}-{kind}", certificate, key, signer.path if signer else ())

    def shown_with(self, files: Files, name: str, *others: x509.Certificate) -> Files:
        """The same leaf with other certificates in its chain."""
        stem = self.directory / name
        chain, combined = stem.with_suffix(".crt"), stem.with_suffix(".pem")
        replace(chain, b"".join(map(_pem, (files.leaf, *others))))
        replace(combined, chain.read_bytes() + files.key.read_bytes())
        return Files(chain, files.key, combined, files.leaf)

    def _write(self, name: str, certificate: x509.Certificate, key: Any, path: Sequence[x509.Certificate]) -> Files:
        stem = self.directory / name
        files = Files(stem.with_suffix(".crt"), stem.with_suffix(".key"), stem.with_suffix(".pem"), certificate)
        chain, secret = b"".join(map(_pem, (certificate, *path))), _key_pem(key)
        for place, text in ((files.chain, chain), (files.key, secret), (files.combined, chain + secret)):
            replace(place, text)
        return files


def replace(path: Path, text: bytes) -> None:
    """Replace a file atomically, as a renewal should."""
    new = path.with_suffix(".new")
    new.write_bytes(text)
    new.rename(path)


_SIGNS = x509.KeyUsage(False, False, False, False, False, True, True, False, False)


def _subject(name: str, units: Sequence[str] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    return x509.Name([*attributes, *([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])])


def _sign(
    subject: x509.Name,
    key: Any,
    issuer: Signer | None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    has_key_ids: bool = True,
) -> x509.Certificate:
    now, signing = datetime.now(UTC), issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start or now - HOUR)
        .not_valid_after(end or now + 24 * HOUR)
    )
    if has_key_ids:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
        builder = builder.add_extension(issued_by, critical=False)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(signing, None if isinstance(signing, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem
