"""Trust bundles: which authorities speak for which trust domain.

Knows that a bundle is authority for one trust domain and no other (SPIFFE Federation, section 7); must not know how a
path is checked against it. An empty bundle is a bundle: nobody of that trust domain is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunnel.pkix.certificate import Certificate
from tunnel.spiffe.ids import TrustDomain


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The authorities of one trust domain; expired and prepared ones may be among them."""

    trust_domain: TrustDomain
    authorities: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class BundleSet:
    """The bundles of one update, each for itself; `disabled` are those that could not be read, and why."""

    bundles: Mapping[TrustDomain, TrustBundle]
    disabled: Mapping[TrustDomain, str] = field(default_factory=dict)
