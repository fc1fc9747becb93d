"""A certificate chain and its key, which belong together once they are one value.

Knows which pairs OpenSSL can present in a TLS handshake; must not know files or formats. The rules are those of ordinary
PKI, not of SPIFFE: names, dates, key usage and basicConstraints are left to the peer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from tunnel.errors import IdentityError, IdentityFault, PeerDenied
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.strength import MIN_RSA_BITS, check_key_strength, is_for_pss_only, load_public_key
from tunnel.spiffe.x509 import PrivateKey

_USABLE = f"RSA of {MIN_RSA_BITS} bits or more, P-256, P-384, P-521, Ed25519 or Ed448"


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """What we present: the leaf first, and the leaf's own key. Making one of anything else raises IdentityError."""

    chain: tuple[Certificate, ...]
    private_key: PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if not self.chain:
            raise IdentityError(IdentityFault.BAD_CERTIFICATE, "there is no certificate for the private key")
        _check_kind(self.chain[0])
        _check_pair(self.chain, self.private_key)


def make_material(chain: Iterable[Certificate], key: PrivateKeyTypes) -> KeyMaterial:
    """The material of a chain and a key of any kind; a certificate that is there twice counts once. Raises IdentityError."""
    if not isinstance(key, PrivateKey):
        kind = type(key).__name__.lstrip("_")
        raise IdentityError(
            IdentityFault.BAD_KEY, f"the private key is a {kind}, which signs no TLS handshake; wanted {_USABLE}"
        )
    return KeyMaterial(tuple(dict.fromkeys(chain)), key)


def _check_kind(leaf: Certificate) -> None:
    try:
        check_key_strength(leaf)
    except PeerDenied as error:
        raise IdentityError(IdentityFault.BAD_KEY, f"the first certificate has {error}; wanted {_USABLE}") from error
    if is_for_pss_only(leaf):  # its key is loaded as plain RSA, and OpenSSL objects
        raise IdentityError(
            IdentityFault.BAD_KEY,
            "the first certificate's key is for RSA-PSS only, which cannot be presented; wanted plain RSA",
        )


def _check_pair(chain: tuple[Certificate, ...], key: PrivateKey) -> None:
    if _belongs(key, chain[0]):
        return
    owner = next((number for number, certificate in enumerate(chain, 1) if _belongs(key, certificate)), None)
    seen = f"belongs to certificate {owner} of {len(chain)}" if owner else f"belongs to none of the certificates ({len(chain)})"
    raise IdentityError(IdentityFault.BAD_KEY, f"the private key {seen}; wanted the first, with its issuers after it")


def _belongs(key: PrivateKey, certificate: Certificate) -> bool:
    try:
        return load_public_key(certificate.key_info) == key.public_key()
    except PeerDenied:  # not even readable, perhaps
        return False
