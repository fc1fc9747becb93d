"""Credentials: what a process presents and trusts, as immutable values.

A private key is excluded from every repr.
"""

from __future__ import annotations

from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.crl import RevocationList
from tunnel.pkix.revocation import NO_LISTS, RevocationLists
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import SpiffeId
from tunnel.spiffe.selection import Offer
from tunnel.spiffe.x509 import PrivateKey

_OVERDUE = 0.75  # of the lifetime; a SPIRE agent renews an SVID at half of it
_RENEWAL_MIN, _RENEWAL_MAX = 1.0, 30.0  # seconds between attempts


@dataclass(frozen=True, slots=True)
class X509Svid:
    """A verified X.509-SVID: its SPIFFE ID, its certificates (leaf first) and its key."""

    spiffe_id: SpiffeId
    hint: str
    chain: tuple[Certificate, ...]
    private_key: PrivateKey = field(repr=False)
    not_after: datetime  # the earliest one in the certification path

    @property
    def overdue_at(self) -> float:
        """Unix time from which the rotation is overdue."""
        begin, end = self.chain[0].not_before.timestamp(), self.not_after.timestamp()
        return begin + _OVERDUE * (end - begin)

    def next_renewal(self, now: float) -> float:
        """Return the Unix time of the next attempt to get a newer SVID.

        The first attempt is when rotation is overdue, each later one after half of the remaining lifetime, one at expiry, and
        then one every 30 seconds.
        """
        end = self.not_after.timestamp()
        if now < self.overdue_at:
            return self.overdue_at
        if now < end:
            return min(now + max((end - now) / 2, _RENEWAL_MIN), end)
        return now + _RENEWAL_MAX


@dataclass(frozen=True, slots=True)
class X509Context:
    """The usable content of one Workload API update."""

    svid: X509Svid | None  # the selected one; None if the agent does not offer it
    bundles: BundleSet
    offered: tuple[Offer, ...] = ()  # every SVID of the update, unverified
    svids: tuple[X509Svid, ...] = ()  # every verified SVID, the selected one included
    skipped: tuple[str, ...] = ()  # skipped SVIDs, with the reason
    notes: tuple[str, ...] = ()  # other skipped parts of the update
    lists: tuple[RevocationList, ...] = ()
    skipped_lists: int = 0  # revocation lists that cannot be used

    def has_same_material(self, other: X509Context) -> bool:
        """Return whether both have the same selected SVID, bundles and revocation lists."""
        return (_material(self.svid), self.bundles, self.lists) == (_material(other.svid), other.bundles, other.lists)


def _material(svid: X509Svid | None) -> object:
    return svid and (svid.spiffe_id, svid.hint, svid.chain)


@dataclass(frozen=True, slots=True)
class SvidCredentials:
    """The selected SVID of an update, with the bundles and the revocation lists of the same update."""

    svid: X509Svid
    bundles: BundleSet
    revocation: RevocationLists = NO_LISTS


@dataclass(frozen=True, slots=True)
class PkiCredentials:
    """Certificates for ordinary PKI: our chain (leaf first, empty if we present none) and the trusted authorities."""

    chain: tuple[Certificate, ...]
    private_key: PrivateKey | None = field(repr=False)
    authorities: tuple[Certificate, ...]
    skipped: tuple[str, ...] = ()  # skipped authorities, with the reason
    revocation: RevocationLists = NO_LISTS


Credentials = SvidCredentials | PkiCredentials


def describe_key(key: PrivateKey) -> str:
    """Return the type and size of a key, without key material."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return f"EC {key.curve.name}"
    if isinstance(key, rsa.RSAPrivateKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.strip("_").removesuffix("PrivateKey")
