"""What we present and trust, as values of one update.

Knows X.509-SVIDs, bundles and which SVID is ours; must not know how they were fetched. The private key stays out of every
repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import SpiffeId
from tunnel.spiffe.selection import Selection
from tunnel.spiffe.x509 import PrivateKey


@dataclass(frozen=True, slots=True)
class X509Svid:
    """One identity that has been verified: its ID, its certificates (leaf first) and its key."""

    spiffe_id: SpiffeId
    hint: str
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey = field(repr=False)
    not_after: datetime  # of the certificate in the path that ends first


@dataclass(frozen=True, slots=True)
class X509Context:
    """One update of the Workload API, accepted whole."""

    svids: tuple[X509Svid, ...]
    bundles: BundleSet
    notes: tuple[str, ...] = ()  # what was left out, for the log
    crl_count: int = 0


@dataclass(frozen=True, slots=True)
class SvidCredentials:
    """The identity that was selected from an update, with the bundles that came with it."""

    svid: X509Svid
    bundles: BundleSet


@dataclass(frozen=True, slots=True)
class PkiCredentials:
    """Certificates that follow ordinary PKI rules: ours, leaf first, if we show any, and the authorities we trust."""

    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey | None = field(repr=False)
    authorities: tuple[x509.Certificate, ...]


Credentials = SvidCredentials | PkiCredentials


def select_svid(svids: tuple[X509Svid, ...], selection: Selection, current: SpiffeId | None) -> X509Svid | None:
    """The wanted SVID, or None when it is not offered.

    Without a wish, the ID chosen before is kept while it is offered, since the order of an agent's list is arbitrary; of
    several with one hint the first counts (Workload API, section 5.2.1).
    """
    offered = [svid for svid in svids if selection.spiffe_id in (None, svid.spiffe_id)]
    offered = [svid for svid in offered if selection.hint in ("", svid.hint)]
    kept = [svid for svid in offered if svid.spiffe_id == current]
    return next(iter(kept or offered), None)


def describe_key(key: PrivateKey) -> str:
    """The kind of a key and its size; not a byte of the key."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return f"EC {key.curve.name}"
    if isinstance(key, rsa.RSAPrivateKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.strip("_").removesuffix("PrivateKey")
