"""What has been proven about the other side, and that it may pass.

Knows the two values that cross from authentication to the relay; must not know how either was found. `Admitted` is made
in `authorizer` alone, and whatever carries bytes takes one: leaving the check out is a type error, not a bypass.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class Peer:
    """Facts about the other side, proven by its certificate; `subject` is hostile text, escaped before it is shown."""

    spiffe_id: SpiffeId
    subject: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """A peer and the rule that lets it pass."""

    peer: Peer
    rule: str

    def __str__(self) -> str:
        return f"peer={self.peer.spiffe_id} rule={self.rule}"
