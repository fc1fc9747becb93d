"""The decision whether a peer may pass.

Knows the rules in force and our own trust domain; must not know how the peer was authenticated. It fails closed: no rule,
no admission.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.authz.peer import Admitted, Peer
from tunnel.authz.rules import PolicyRule, Rule
from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.ids import TrustDomain


@dataclass(frozen=True, slots=True)
class Authorizer:
    """Rules joined by OR, seen from one trust domain; from none where certificates follow ordinary PKI rules."""

    rules: tuple[Rule, ...]
    own: TrustDomain | None

    def decide(self, peer: Peer) -> Admitted:
        """The peer admitted by the first rule that does; raises PeerDenied when none does."""
        is_own = self.own is None or (peer.spiffe_id is not None and peer.spiffe_id.trust_domain == self.own)
        for rule in self.rules:
            if (is_own or rule.names_trust_domain()) and rule.admits(peer):
                return Admitted(peer, str(rule), not isinstance(rule, PolicyRule))
        raise PeerDenied(Denial.NO_RULE, f"unauthorized: invalid principal, or principal not allowed: {peer}")

    def is_slow(self) -> bool:
        """Whether a decision may have to wait for a policy."""
        return any(isinstance(rule, PolicyRule) for rule in self.rules)


def allow_anonymous(why: str) -> Admitted:
    """The admission of whoever comes where no certificate is asked for, on the operator's word."""
    return Admitted(None, why)
