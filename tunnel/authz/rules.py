"""The access rules: one class per kind, with a test whether it matches a peer.

Under SPIFFE a rule that names no trust domain matches peers of our own trust domain only (`Authorizer.judge`), so that a new
federation never widens an existing rule. A new kind is a class here, a member of `Fact`, a flag, and a key of access lists.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from tunnel.authz.pattern import UriPattern
from tunnel.authz.peer import Peer
from tunnel.authz.pins import SpkiPin
from tunnel.ip_address import IpAddress, IpNetwork, unmap_ipv4
from tunnel.lazy_dataclass import dataclass, field
from tunnel.spiffe.ids import SpiffeId, TrustDomain


class _AccessRule:
    """The defaults of a rule kind; a kind that can match peers of other trust domains overrides `names_trust_domain`."""

    __slots__ = ()
    is_slow: ClassVar[bool] = False  # the rule may block, and its answer may change while the certificate stays the same

    def names_trust_domain(self) -> bool:
        """Whether the rule restricts or opens the trust domain of the peer by itself."""
        return False

    def needs_source(self) -> bool:
        """Whether the answer depends on the address of the connecting client, and not on its certificate alone."""
        return False


class _PeerRule(_AccessRule, ABC):
    """A rule kind that depends on the facts about the peer alone."""

    __slots__ = ()

    @abstractmethod
    def matches(self, peer: Peer) -> bool:
        """Whether the rule matches the peer."""

    def covers(self, peer: Peer, _source: IpAddress | None, *, if_unknown: bool) -> bool:
        """Whether the rule matches a connection of the peer; `if_unknown` is the answer about a source that is not known."""
        return self.matches(peer)


@dataclass(frozen=True, slots=True)
class IdRule(_PeerRule):
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
class TrustDomainRule(_PeerRule):
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
class UriRule(_PeerRule):
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
class CommonNameRule(_PeerRule):
    """One exact common name of the subject; of several common names the last counts, as in Go."""

    name: str

    def __str__(self) -> str:
        return f"cn:{self.name}"

    def matches(self, peer: Peer) -> bool:
        """Whether the subject has this common name."""
        return peer.common_name == self.name


@dataclass(frozen=True, slots=True)
class UnitRule(_PeerRule):
    """One exact organizational unit of the subject."""

    unit: str

    def __str__(self) -> str:
        return f"ou:{self.unit}"

    def matches(self, peer: Peer) -> bool:
        """Whether the subject has this organizational unit."""
        return self.unit in peer.organizational_units


@dataclass(frozen=True, slots=True)
class DnsRule(_PeerRule):
    """One exact DNS SAN: case-sensitive, and wildcards have no meaning."""

    name: str

    def __str__(self) -> str:
        return f"dns:{self.name}"

    def matches(self, peer: Peer) -> bool:
        """Whether the certificate has this DNS SAN."""
        return self.name in peer.dns_names


@dataclass(frozen=True, slots=True)
class IpRule(_PeerRule):
    """One IP SAN; an IPv4 address equals its IPv4-mapped IPv6 address."""

    address: IpAddress

    def __str__(self) -> str:
        return f"ip:{self.address}"

    def matches(self, peer: Peer) -> bool:
        """Whether the certificate has this IP SAN."""
        return any(unmap_ipv4(address) == unmap_ipv4(self.address) for address in peer.ip_addresses)


@dataclass(frozen=True, slots=True)
class KeyRule(_PeerRule):
    """The pin of the peer's public key; unlike `--allow-spki-pin`, the certification path is verified all the same."""

    pin: SpkiPin

    def __str__(self) -> str:
        return f"spki-pin:{self.pin}"

    def matches(self, peer: Peer) -> bool:
        """Whether the peer's certificate has this public key."""
        return self.pin.is_match(peer.public_key)


@dataclass(frozen=True, slots=True)
class PolicyRule(_PeerRule):
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
class AnyRule(_PeerRule):
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


@dataclass(frozen=True, slots=True)
class SourceRule(_AccessRule):
    """Networks of which one must contain the address of the connecting client.

    A client on a Unix socket has no IP address: `if_unknown` is the answer about it.
    """

    networks: tuple[IpNetwork, ...]

    def __str__(self) -> str:
        return f"source:{','.join(map(str, self.networks))}"

    def needs_source(self) -> bool:
        """True."""
        return True

    def covers(self, _peer: Peer, source: IpAddress | None, *, if_unknown: bool) -> bool:
        """Whether a network contains the address, `if_unknown` if there is none."""
        if source is None:
            return if_unknown
        address = unmap_ipv4(source)
        return any(address in network for network in self.networks)


Fact = (
    IdRule
    | TrustDomainRule
    | UriRule
    | CommonNameRule
    | UnitRule
    | DnsRule
    | IpRule
    | KeyRule
    | PolicyRule
    | AnyRule
    | SourceRule
)


@dataclass(frozen=True, slots=True)
class AllRule(_AccessRule):
    """Several conditions joined by AND."""

    parts: tuple[Fact, ...]

    def __str__(self) -> str:
        return "&".join(map(str, self.parts))

    def names_trust_domain(self) -> bool:
        """Whether one of the conditions does, which holds for the whole rule."""
        return any(part.names_trust_domain() for part in self.parts)

    def needs_source(self) -> bool:
        """Whether one of the conditions does."""
        return any(part.needs_source() for part in self.parts)

    def covers(self, peer: Peer, source: IpAddress | None, *, if_unknown: bool) -> bool:
        """Whether all conditions match."""
        return all(part.covers(peer, source, if_unknown=if_unknown) for part in self.parts)


Condition = Fact | AllRule


@dataclass(frozen=True, slots=True)
class DenyRule(_AccessRule):
    """Refuses the peers that a condition matches; every other rule admits those that it matches."""

    condition: Condition

    def __str__(self) -> str:
        return f"deny:{self.condition}"

    def names_trust_domain(self) -> bool:
        """True: if a deny without a trust domain held for our own peers only, it would spare the peers of all others."""
        return True

    def needs_source(self) -> bool:
        """Whether the condition does."""
        return self.condition.needs_source()

    def covers(self, peer: Peer, source: IpAddress | None, *, if_unknown: bool) -> bool:
        """Whether the condition matches."""
        return self.condition.covers(peer, source, if_unknown=if_unknown)


Rule = Condition | DenyRule  # the first one that matches decides
