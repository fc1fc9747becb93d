"""The decision whether a peer may pass.

Knows the rules in force and our own trust domain; must not know how the peer was authenticated. It fails closed: no rule,
no admission.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.authz.peer import Admitted, Peer
from tunnel.authz.rules import Rule
from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.ids import TrustDomain


@dataclass(frozen=True, slots=True)
class Authorizer:
    """Rules joined by OR, seen from one trust domain."""

    rules: tuple[Rule, ...]
    own: TrustDomain

    def decide(self, peer: Peer) -> Admitted:
        """The peer admitted by the first rule that does; raises PeerDenied when none does."""
        for rule in self.rules:
            if rule.admits(peer, self.own):
                return Admitted(peer, str(rule))
        raise PeerDenied(Denial.NO_RULE, str(peer.spiffe_id))
