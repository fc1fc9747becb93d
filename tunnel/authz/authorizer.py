"""The authorization decision: `Authorizer` matches a peer against the access rules and returns an `Admitted`.

`Admitted` is constructed in this module only, and the relay requires one: a code path that skips authorization is a type error.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.authz.peer import Peer, describe_admission
from tunnel.authz.rules import Rule
from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.ids import TrustDomain


@dataclass(frozen=True, slots=True)
class Admitted:
    """A peer and the access rule that admits it; `peer` is None if no certificate was requested."""

    peer: Peer | None
    rule: str
    is_cacheable: bool = True  # the same certificate is admitted again for as long as the rules stay the same

    def __str__(self) -> str:
        return describe_admission(self.peer, self.rule)


@dataclass(frozen=True, slots=True)
class Authorizer:
    """Access rules joined by OR; without rules every peer is denied. `own` is our trust domain, None with ordinary PKI."""

    rules: tuple[Rule, ...]
    own: TrustDomain | None

    def decide(self, peer: Peer) -> Admitted:
        """Return the admission by the first matching rule; raises PeerDenied if no rule matches."""
        is_own = self.own is None or (peer.spiffe_id is not None and peer.spiffe_id.trust_domain == self.own)
        for rule in self.rules:
            if (is_own or rule.names_trust_domain()) and rule.matches(peer):
                return Admitted(peer, str(rule), not rule.is_slow)
        raise PeerDenied(Denial.NO_RULE, f"unauthorized: invalid principal, or principal not allowed: {peer}")

    def is_slow(self) -> bool:
        """Whether a decision may block, because a rule evaluates a policy."""
        return any(rule.is_slow for rule in self.rules)


def allow_anonymous(rule: str) -> Admitted:
    """Return the admission of every client where no certificate is requested; `rule` is the reason for the log."""
    return Admitted(None, rule)
