"""A certificate chain with the matching private key, which OpenSSL can present in a TLS handshake.

The rules are those of ordinary PKI, not of SPIFFE: names, dates, key usage and basicConstraints are for the peer to check.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from tunnel.errors import IdentityError, IdentityFault, PeerDenied
from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.strength import MIN_RSA_BITS, check_key_strength, is_for_pss_only, load_public_key
from tunnel.spiffe.x509 import PrivateKey

_USABLE = f"RSA of {MIN_RSA_BITS} bits or more, P-256, P-384, P-521, Ed25519 or Ed448"


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """A chain, leaf first, and the private key of the leaf; the constructor raises IdentityError for any other pair."""

    chain: tuple[Certificate, ...]
    private_key: PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if not self.chain:
            raise IdentityError(IdentityFault.BAD_CERTIFICATE, "no certificate for the private key")
        _check_key_type(self.chain[0])
        _check_pair(self.chain, self.private_key)


def make_material(chain: Iterable[Certificate], key: PrivateKeyTypes) -> KeyMaterial:
    """Make the material of a chain and a key, without duplicate certificates; raises IdentityError."""
    if not isinstance(key, PrivateKey):
        kind = type(key).__name__.lstrip("_")
        raise IdentityError(IdentityFault.BAD_KEY, f"unsupported type of private key: {kind}; expected {_USABLE}")
    return KeyMaterial(tuple(dict.fromkeys(chain)), key)


def _check_key_type(leaf: Certificate) -> None:
    try:
        check_key_strength(leaf)
    except PeerDenied as error:
        raise IdentityError(IdentityFault.BAD_KEY, f"bad key of the first certificate: {error}; expected {_USABLE}") from error
    if is_for_pss_only(leaf):  # OpenSSL refuses it, because the private key is loaded as plain RSA
        raise IdentityError(
            IdentityFault.BAD_KEY,
            "bad key of the first certificate: for RSA-PSS only; expected plain RSA",
        )


def _check_pair(chain: tuple[Certificate, ...], key: PrivateKey) -> None:
    if _matches(key, chain[0]):
        return
    owner = next((number for number, certificate in enumerate(chain, 1) if _matches(key, certificate)), None)
    problem = f"matches certificate {owner} of {len(chain)}" if owner else f"matches none of the {len(chain)} certificates"
    raise IdentityError(IdentityFault.BAD_KEY, f"the private key {problem}; expected the first, with its issuers after it")


def _matches(key: PrivateKey, certificate: Certificate) -> bool:
    try:
        return load_public_key(certificate.key_info) == key.public_key()
    except PeerDenied:  # an unreadable or weak key
        return False
