"""What has been proven about the other side, and that it may pass.

Knows the two values that cross from authentication to the relay; must not know how either was found. `Admitted` is made
in `authorizer` alone, and whatever carries bytes takes one: leaving the check out is a type error, not a bypass.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tunnel.ip_address import IpAddress
from tunnel.log import escape
from tunnel.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class Peer:
    """Facts about the other side, proven by its certificate; every text is hostile and escaped before it is shown."""

    subject: str
    spiffe_id: SpiffeId | None = None  # None where certificates follow ordinary PKI rules
    leaf: bytes = field(default=b"", repr=False)  # DER
    public_key: bytes = field(default=b"", repr=False)  # DER, SubjectPublicKeyInfo
    common_name: str = ""
    organizational_units: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[IpAddress, ...] = ()
    uris: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The name by which the log calls it, one word: its SPIFFE ID, else the first name that its certificate has."""
        if self.spiffe_id is not None:
            return str(self.spiffe_id)
        names = (*self.uris, *self.dns_names, *map(str, self.ip_addresses), self.common_name, "unnamed")
        return escape(next(filter(None, names))).replace(" ", "\\x20")


@dataclass(frozen=True, slots=True)
class Admitted:
    """A peer and the rule that lets it pass; no peer where none was asked for a certificate."""

    peer: Peer | None
    rule: str
    is_lasting: bool = True  # the same certificate would be admitted again, for as long as the rules stay

    def __str__(self) -> str:
        return describe_admission(self.peer, self.rule)


def describe_admission(peer: Peer | None, rule: str) -> str:
    """The fields of the log: the peer, and the rule that has admitted it."""
    return f"peer={peer or 'anonymous'} rule={rule}"
