"""The rules an operator can write about peers.

Knows what each rule means for what a peer's certificate says; must not know flags or how certificates are verified. Whether
a rule names a trust domain matters under SPIFFE: one that names none speaks about our own only, so that a new federation
never widens what an old rule admits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tunnel.authz.pattern import UriPattern
from tunnel.authz.peer import Peer
from tunnel.ip_address import IpAddress, unmap_ipv4
from tunnel.spiffe.ids import SpiffeId, TrustDomain


@dataclass(frozen=True, slots=True)
class IdRule:
    """One exact SPIFFE ID."""

    spiffe_id: SpiffeId

    def __str__(self) -> str:
        return f"id:{self.spiffe_id}"

    def names_trust_domain(self) -> bool:
        """Always: it is a part of the ID."""
        return True

    def admits(self, peer: Peer) -> bool:
        """Whether the peer is this very one."""
        return peer.spiffe_id == self.spiffe_id


@dataclass(frozen=True, slots=True)
class TrustDomainRule:
    """Every workload of one trust domain."""

    trust_domain: TrustDomain

    def __str__(self) -> str:
        return f"trust-domain:{self.trust_domain}"

    def names_trust_domain(self) -> bool:
        """Always."""
        return True

    def admits(self, peer: Peer) -> bool:
        """Whether the peer is of that trust domain."""
        return peer.spiffe_id is not None and peer.spiffe_id.trust_domain == self.trust_domain


@dataclass(frozen=True, slots=True)
class UriRule:
    """Whoever's certificate has a URI that matches a pattern."""

    pattern: UriPattern

    def __str__(self) -> str:
        return f"uri:{self.pattern.text}"

    def names_trust_domain(self) -> bool:
        """Whether the pattern spells one out, rather than a wildcard in its place."""
        return self.pattern.names_trust_domain()

    def admits(self, peer: Peer) -> bool:
        """Whether a URI SAN matches."""
        return any(self.pattern.is_match(uri) for uri in peer.uris)


@dataclass(frozen=True, slots=True)
class CommonNameRule:
    """One exact common name of the subject; of several the last counts, as Go has it."""

    name: str

    def __str__(self) -> str:
        return f"cn:{self.name}"

    def names_trust_domain(self) -> bool:
        """Never."""
        return False

    def admits(self, peer: Peer) -> bool:
        """Whether the peer has this name."""
        return peer.common_name == self.name


@dataclass(frozen=True, slots=True)
class UnitRule:
    """One exact organizational unit of the subject."""

    unit: str

    def __str__(self) -> str:
        return f"ou:{self.unit}"

    def names_trust_domain(self) -> bool:
        """Never."""
        return False

    def admits(self, peer: Peer) -> bool:
        """Whether one of the peer's units is this one."""
        return self.unit in peer.organizational_units


@dataclass(frozen=True, slots=True)
class DnsRule:
    """One exact DNS SAN: neither case nor wildcards are interpreted."""

    name: str

    def __str__(self) -> str:
        return f"dns:{self.name}"

    def names_trust_domain(self) -> bool:
        """Never: a DNS name is no trust domain."""
        return False

    def admits(self, peer: Peer) -> bool:
        """Whether one of the peer's DNS names is this one."""
        return self.name in peer.dns_names


@dataclass(frozen=True, slots=True)
class IpRule:
    """One IP SAN; IPv4 equals its form mapped into IPv6."""

    address: IpAddress

    def __str__(self) -> str:
        return f"ip:{self.address}"

    def names_trust_domain(self) -> bool:
        """Never."""
        return False

    def admits(self, peer: Peer) -> bool:
        """Whether one of the peer's addresses is this one."""
        return any(unmap_ipv4(address) == unmap_ipv4(self.address) for address in peer.ip_addresses)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """Whom a policy admits; asking it takes time, so it is asked on a thread that may wait, and last."""

    query: str
    ask: Callable[[Peer], bool] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"policy:{self.query}"

    def names_trust_domain(self) -> bool:
        """Never: what a policy looks at is not known."""
        return False

    def admits(self, peer: Peer) -> bool:
        """Whether the policy admits the peer; raises PeerDenied when it gives no answer."""
        return self.ask(peer)


@dataclass(frozen=True, slots=True)
class AnyRule:
    """Everyone whose certificate verifies; `name` says by what."""

    name: str = "any"

    def __str__(self) -> str:
        return self.name

    def names_trust_domain(self) -> bool:
        """Every one: that is what the operator has said."""
        return True

    def admits(self, peer: Peer) -> bool:
        """Always."""
        return True


Rule = IdRule | TrustDomainRule | UriRule | CommonNameRule | UnitRule | DnsRule | IpRule | PolicyRule | AnyRule
