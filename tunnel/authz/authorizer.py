"""The authorization decision: `Authorizer` matches a peer against the access rules and returns an `Admitted`.

`Admitted` is constructed in this module only, and the relay requires one: a code path that skips authorization is a type error.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from tunnel.authz.peer import PLAINTEXT, Peer, SentCertificates, describe_admission
from tunnel.authz.rules import DenyRule, Rule
from tunnel.errors import Denial, PeerDenied
from tunnel.ip_address import IpAddress
from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix.certificate import Certificate
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.selection import join_names

_MOST_NAMES = 4  # of the accepted trust domains, in an error message


@dataclass(frozen=True, slots=True)
class Admitted:
    """A peer and the access rule that admits it; `peer` is None if there was no certificate to verify."""

    peer: Peer | None
    rule: str
    is_cacheable: bool = True  # the same certificate is admitted again for as long as the rules stay the same
    expires: float | None = None  # Unix time at which the first certificate of the verified path expires; None for never
    anchor: Certificate | None = field(default=None, repr=False, compare=False)  # of the verified path
    sent: SentCertificates | None = field(default=None, repr=False, compare=False)  # from which the path was built

    @property
    def is_plaintext(self) -> bool:
        """Whether it is a plain TCP client, which has no identity."""
        return self.peer is None and self.rule == PLAINTEXT

    def __str__(self) -> str:
        return describe_admission(self.peer, self.rule)


class RuleEffect(Enum):
    """What a rule says about one connection of a peer."""

    ADMITS = "admits"
    DENIES = "denies"
    NO_MATCH = "no match"
    OWN_ONLY = "for peers of our own trust domain only"


@dataclass(frozen=True, slots=True)
class Authorizer:
    """Access rules, of which the first that matches decides; a peer that no rule matches is denied.

    `own` is our trust domain, None with ordinary PKI. `trust_domains` are those that are accepted at all, None for every one
    with a trust bundle.
    """

    rules: tuple[Rule, ...]
    own: TrustDomain | None
    trust_domains: tuple[TrustDomain, ...] | None = None

    def decide(self, peer: Peer, source: IpAddress | None = None, expires: float | None = None) -> Admitted:
        """Return the admission by the first matching rule; raises PeerDenied if it is a deny, or if no rule matches.

        `source` is the address of the connecting client if that is known, `expires` the end of the path's validity.
        """
        self.check_trust_domain(peer)
        for rule, effect in self.judge(peer, source):
            if effect is RuleEffect.ADMITS:
                return Admitted(peer, str(rule), not rule.is_slow, expires)
            if effect is RuleEffect.DENIES:
                raise PeerDenied(Denial.DENY_RULE, f"unauthorized: rule {rule}: {peer}")
        raise PeerDenied(Denial.NO_RULE, f"unauthorized: invalid principal, or principal not allowed: {peer}")

    def check_trust_domain(self, peer: Peer) -> None:
        """Raise PeerDenied if the peer is of a trust domain that is not accepted."""
        if self.trust_domains is None:
            return
        if peer.spiffe_id is None or peer.spiffe_id.trust_domain not in self.trust_domains:
            accepted = join_names([domain.name for domain in self.trust_domains], _MOST_NAMES) or "none"
            raise PeerDenied(Denial.FOREIGN_TRUST_DOMAIN, f"unauthorized: {peer}; accepted trust domains: {accepted}")

    def judge(self, peer: Peer, source: IpAddress | None) -> Iterator[tuple[Rule, RuleEffect]]:
        """Yield the rules with their effect, in order, up to the one that decides."""
        is_own = self.own is None or (peer.spiffe_id is not None and peer.spiffe_id.trust_domain == self.own)
        for rule in self.rules:
            is_deny = isinstance(rule, DenyRule)
            if not is_own and not rule.names_trust_domain():
                yield rule, RuleEffect.OWN_ONLY
            elif not rule.covers(peer, source, if_unknown=is_deny):  # a client of unknown source is denied: fail closed
                yield rule, RuleEffect.NO_MATCH
            else:
                yield rule, RuleEffect.DENIES if is_deny else RuleEffect.ADMITS
                return

    def is_slow(self) -> bool:
        """Whether a decision may block, because a rule evaluates a policy."""
        return any(rule.is_slow for rule in self.rules)

    def needs_source(self) -> bool:
        """Whether a decision depends on the address of the connecting client."""
        return any(rule.needs_source() for rule in self.rules)


def allow_anonymous(rule: str) -> Admitted:
    """Return the admission of every client where no certificate is requested; `rule` is the reason for the log."""
    return Admitted(None, rule)


def permit_plaintext() -> Admitted:
    """Return the admission of a plain TCP client on a listener that permits them."""
    return Admitted(None, PLAINTEXT)
