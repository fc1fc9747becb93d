"""A certificate from an authority with its key: what it is asked for with, how long it lasts, how it is written down.

Knows what must be true of an answer beyond being a pair; must not know files or the network.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tunnel.errors import IdentityError, IdentityFault, PeerDenied
from tunnel.keystore.material import KeyMaterial
from tunnel.pkix.certificate import Certificate
from tunnel.spiffe.x509 import PrivateKey

_LEFT: Final = 3  # renewed when one part of so many is left of the lifetime


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key of the kind that every authority takes and that costs a handshake the least."""
    return ec.generate_private_key(ec.SECP256R1())


def renew_due_at(chain: tuple[Certificate, ...]) -> datetime:
    """When a third of the leaf's lifetime is left."""
    leaf = chain[0]
    return leaf.not_after - (leaf.not_after - leaf.not_before) / _LEFT


def check_name(material: KeyMaterial, domain: str) -> KeyMaterial:
    """The material, whose leaf names the domain; raises IdentityError."""
    if domain not in _dns_names(material.chain[0]):
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"the certificate does not name {domain}")
    return material


def encode_key(key: PrivateKey) -> bytes:
    """PEM, unencrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def encode_material(material: KeyMaterial) -> bytes:
    """The key and then the certificates, in one text: a file of it cannot be half new."""
    return encode_key(material.private_key) + b"".join(one.pem for one in material.chain)


def _dns_names(certificate: Certificate) -> list[str]:
    try:
        return [name.lower() for name in certificate.extensions.dns_names()]
    except PeerDenied:
        return []
