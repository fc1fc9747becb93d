"""The access rules: one class per kind, with a test whether it matches a peer.

Under SPIFFE a rule that names no trust domain matches peers of our own trust domain only (`Authorizer.decide`), so that a new
federation never widens an existing rule. A new kind is a class here, a member of `Rule`, and a flag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from tunnel.authz.pattern import UriPattern
from tunnel.authz.peer import Peer
from tunnel.ip_address import IpAddress, unmap_ipv4
from tunnel.spiffe.ids import SpiffeId, TrustDomain


class _AccessRule:
    """The defaults of a rule kind; a kind that can match peers of other trust domains overrides `names_trust_domain`."""

    __slots__ = ()
    is_slow: ClassVar[bool] = False  # the rule may block, and its answer may change while the certificate stays the same

    def names_trust_domain(self) -> bool:
        """Whether the rule restricts or opens the trust domain of the peer by itself."""
        return False


@dataclass(frozen=True, slots=True)
class IdRule(_AccessRule):
    """One exact SPIFFE ID."""

    spiffe_id: SpiffeId

    def __str__(self) -> str:
        return f"id:{self.spiffe_id}"

    def names_trust_domain(self) -> bool:
        """True: the trust domain is part of the ID."""
        return True

    def matches(self, peer: Peer) -> bool:
        """Whether the peer has this SPIFFE ID."""
        return peer.spiffe_id == self.spiffe_id


@dataclass(frozen=True, slots=True)
class TrustDomainRule(_AccessRule):
    """Every workload of one trust domain."""

    trust_domain: TrustDomain

    def __str__(self) -> str:
        return f"trust-domain:{self.trust_domain}"

    def names_trust_domain(self) -> bool:
        """True."""
        return True

    def matches(self, peer: Peer) -> bool:
        """Whether the peer has a SPIFFE ID of that trust domain."""
        return peer.spiffe_id is not None and peer.spiffe_id.trust_domain == self.trust_domain


@dataclass(frozen=True, slots=True)
class UriRule(_AccessRule):
    """A pattern for URI SANs."""

    pattern: UriPattern

    def __str__(self) -> str:
        return f"uri:{self.pattern.text}"

    def names_trust_domain(self) -> bool:
        """Whether the pattern spells out one trust domain instead of a wildcard."""
        return self.pattern.names_trust_domain()

    def matches(self, peer: Peer) -> bool:
        """Whether a URI SAN matches the pattern."""
        return any(self.pattern.is_match(uri) for uri in peer.uris)


@dataclass(frozen=True, slots=True)
class CommonNameRule(_AccessRule):
    """One exact common name of the subject; of several common names the last counts, as in Go."""

    name: str

    def __str__(self) -> str:
        return f"cn:{self.name}"

    def matches(self, peer: Peer) -> bool:
        """Whether the subject has this common name."""
        return peer.common_name == self.name


@dataclass(frozen=True, slots=True)
class UnitRule(_AccessRule):
    """One exact organizational unit of the subject."""

    unit: str

    def __str__(self) -> str:
        return f"ou:{self.unit}"

    def matches(self, peer: Peer) -> bool:
        """Whether the subject has this organizational unit."""
        return self.unit in peer.organizational_units


@dataclass(frozen=True, slots=True)
class DnsRule(_AccessRule):
    """One exact DNS SAN: case-sensitive, and wildcards have no meaning."""

    name: str

    def __str__(self) -> str:
        return f"dns:{self.name}"

    def matches(self, peer: Peer) -> bool:
        """Whether the certificate has this DNS SAN."""
        return self.name in peer.dns_names


@dataclass(frozen=True, slots=True)
class IpRule(_AccessRule):
    """One IP SAN; an IPv4 address equals its IPv4-mapped IPv6 address."""

    address: IpAddress

    def __str__(self) -> str:
        return f"ip:{self.address}"

    def matches(self, peer: Peer) -> bool:
        """Whether the certificate has this IP SAN."""
        return any(unmap_ipv4(address) == unmap_ipv4(self.address) for address in peer.ip_addresses)


@dataclass(frozen=True, slots=True)
class PolicyRule(_AccessRule):
    """A Rego policy, evaluated in another process: on a thread that may block, and after all other rules."""

    is_slow: ClassVar[bool] = True
    query: str
    evaluate: Callable[[Peer], bool] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"policy:{self.query}"

    def matches(self, peer: Peer) -> bool:
        """Whether the policy admits the peer; raises PeerDenied if the evaluation fails."""
        return self.evaluate(peer)


@dataclass(frozen=True, slots=True)
class AnyRule(_AccessRule):
    """Every peer whose certificate verifies; `name` is the rule in the log."""

    name: str = "any"

    def __str__(self) -> str:
        return self.name

    def names_trust_domain(self) -> bool:
        """True: the operator has asked for every trust domain."""
        return True

    def matches(self, peer: Peer) -> bool:
        """True."""
        return True


Rule = IdRule | TrustDomainRule | UriRule | CommonNameRule | UnitRule | DnsRule | IpRule | PolicyRule | AnyRule
