"""What we present and trust, as values of one update. The private key stays out of every repr."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tunnel.pkix.certificate import Certificate
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import SpiffeId
from tunnel.spiffe.selection import Offer
from tunnel.spiffe.x509 import PrivateKey


@dataclass(frozen=True, slots=True)
class X509Svid:
    """One identity that has been verified: its ID, its certificates (leaf first) and its key."""

    spiffe_id: SpiffeId
    hint: str
    chain: tuple[Certificate, ...]
    private_key: PrivateKey = field(repr=False)
    not_after: datetime  # of the certificate in the path that ends first


@dataclass(frozen=True, slots=True)
class X509Context:
    """What one update of the Workload API holds for us."""

    svid: X509Svid | None  # the selected one; None when the agent does not offer it
    bundles: BundleSet
    offered: tuple[Offer, ...] = ()  # everything, unverified
    svids: tuple[X509Svid, ...] = ()  # all that were verified; the selected one is among them
    left_out: tuple[str, ...] = ()  # SVIDs that cannot be used, and why
    notes: tuple[str, ...] = ()  # what else was left out
    crl_count: int = 0

    def has_same_material(self, other: X509Context) -> bool:
        """Whether both present and trust the same, whatever else the agent offers."""
        return (_material(self.svid), self.bundles) == (_material(other.svid), other.bundles)


def _material(svid: X509Svid | None) -> object:
    return svid and (svid.spiffe_id, svid.hint, svid.chain)


@dataclass(frozen=True, slots=True)
class SvidCredentials:
    """The identity that was selected from an update, with the bundles that came with it."""

    svid: X509Svid
    bundles: BundleSet


@dataclass(frozen=True, slots=True)
class PkiCredentials:
    """Certificates that follow ordinary PKI rules: ours, leaf first, if we show any, and the authorities we trust."""

    chain: tuple[Certificate, ...]
    private_key: PrivateKey | None = field(repr=False)
    authorities: tuple[Certificate, ...]
    left_out: tuple[str, ...] = ()  # authorities that cannot be used, and why


Credentials = SvidCredentials | PkiCredentials


def describe_key(key: PrivateKey) -> str:
    """The kind of a key and its size; not a byte of the key."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return f"EC {key.curve.name}"
    if isinstance(key, rsa.RSAPrivateKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.strip("_").removesuffix("PrivateKey")
