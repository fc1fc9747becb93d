"""The rules an operator can write about peers.

Knows what each rule means for a peer's SPIFFE ID; must not know flags or certificates. A rule that names no trust domain
speaks about our own only, so that a new federation never widens what an old rule admits.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.authz.pattern import UriPattern
from tunnel.authz.peer import Peer
from tunnel.spiffe.ids import SpiffeId, TrustDomain


@dataclass(frozen=True, slots=True)
class IdRule:
    """One exact SPIFFE ID."""

    spiffe_id: SpiffeId

    def __str__(self) -> str:
        return f"id:{self.spiffe_id}"

    def admits(self, peer: Peer, own: TrustDomain) -> bool:
        """Whether the peer is this very one."""
        return peer.spiffe_id == self.spiffe_id


@dataclass(frozen=True, slots=True)
class TrustDomainRule:
    """Every workload of one trust domain."""

    trust_domain: TrustDomain

    def __str__(self) -> str:
        return f"trust-domain:{self.trust_domain}"

    def admits(self, peer: Peer, own: TrustDomain) -> bool:
        """Whether the peer is of that trust domain."""
        return peer.spiffe_id.trust_domain == self.trust_domain


@dataclass(frozen=True, slots=True)
class UriRule:
    """Whoever's SPIFFE ID matches a pattern."""

    pattern: UriPattern

    def __str__(self) -> str:
        return f"uri:{self.pattern.text}"

    def admits(self, peer: Peer, own: TrustDomain) -> bool:
        """Whether the ID matches, within our own trust domain unless the pattern names another."""
        is_within = self.pattern.names_trust_domain() or peer.spiffe_id.trust_domain == own
        return is_within and self.pattern.is_match(str(peer.spiffe_id))


@dataclass(frozen=True, slots=True)
class AnyRule:
    """Everyone whose SVID verifies, of every trust domain there is a bundle for."""

    def __str__(self) -> str:
        return "any"

    def admits(self, peer: Peer, own: TrustDomain) -> bool:
        """Always."""
        return True


Rule = IdRule | TrustDomainRule | UriRule | AnyRule
