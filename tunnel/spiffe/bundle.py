"""X.509 trust bundles by trust domain.

A bundle is valid for one trust domain only (SPIFFE Federation, section 7). With an empty bundle no peer of that trust domain is
trusted.
"""

from __future__ import annotations

from collections.abc import Mapping

from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix.certificate import Certificate
from tunnel.spiffe.ids import TrustDomain


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The authorities of one trust domain; some may be expired or not valid yet."""

    trust_domain: TrustDomain
    authorities: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class BundleSet:
    """The bundles of one update; `disabled` has the bundles that could not be parsed, with the error."""

    bundles: Mapping[TrustDomain, TrustBundle]
    disabled: Mapping[TrustDomain, str] = field(default_factory=dict)
