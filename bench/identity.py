"""The identities of one run: a throw-away authority, a server's SVID and a client's, as files.

Knows certificates; must not know who uses them. All peers get the same server certificate and see the same client.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "example.org"
SERVER_ID = f"spiffe://{TRUST_DOMAIN}/server"
CLIENT_ID = f"spiffe://{TRUST_DOMAIN}/client"


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM files, and the address of the Workload API that serves the same server SVID (empty: there is none)."""

    server_chain: Path
    server_key: Path
    client_chain: Path
    client_key: Path
    authorities: Path
    workload_api: str = ""


@contextlib.contextmanager
def open_identity(directory: Path) -> Iterator[Identity]:
    """The files of a new authority in `directory`."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate(f"spiffe://{TRUST_DOMAIN}", authority_key, None, authority_key)
    (directory / "ca.pem").write_bytes(_pem(authority))
    for name, spiffe_id in (("server", SERVER_ID), ("client", CLIENT_ID)):
        key = ec.generate_private_key(ec.SECP256R1())
        (directory / f"{name}.pem").write_bytes(_pem(_certificate(spiffe_id, key, authority, authority_key)))
        _write_key(directory / f"{name}.key", key)
    files = [directory / name for name in ("server.pem", "server.key", "client.pem", "client.key", "ca.pem")]
    yield Identity(files[0], files[1], files[2], files[3], files[4])


def _certificate(
    spiffe_id: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    is_leaf = issuer is not None
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE" if is_leaf else "SPIFFE")])
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "encipher_only", "decipher_only"), False
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=6))
        .add_extension(x509.BasicConstraints(ca=not is_leaf, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=is_leaf, key_agreement=is_leaf, key_cert_sign=not is_leaf, crl_sign=not is_leaf, **usage
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)]), critical=False)
    )
    if is_leaf:
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
