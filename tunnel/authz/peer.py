"""The facts about a peer that its verified certificate proves; access rules match these and nothing else."""

from __future__ import annotations

import re

from tunnel.ip_address import IpAddress
from tunnel.lazy_dataclass import dataclass, field
from tunnel.log import escape
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.names import COMMON_NAME, ORGANIZATIONAL_UNIT
from tunnel.spiffe.ids import SpiffeId

PLAINTEXT = "plaintext"  # in the log, instead of a peer and instead of an access rule
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")


@dataclass(frozen=True, slots=True)
class Peer:
    """The authenticated other side of a connection. Every text is untrusted: escape it before it is printed."""

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
        """Return the name for the log, without spaces: the SPIFFE ID, else the first name in the certificate."""
        if self.spiffe_id is not None:
            return str(self.spiffe_id)
        names = (*self.uris, *self.dns_names, *map(str, self.ip_addresses), self.common_name, "unnamed")
        return escape(next(filter(None, names))).replace(" ", "\\x20")


@dataclass(frozen=True, slots=True)
class SentCertificates:
    """The certificates that a peer sent, in DER, leaf first, and one SHA-256 digest of all."""

    digest: bytes
    chain: tuple[bytes, ...]


def peer_name(peer: Peer | None, rule: str) -> str:
    """Return the name of a peer without spaces, also of one that has shown no certificate to the access rule."""
    if peer is not None:
        return str(peer)
    return PLAINTEXT if rule == PLAINTEXT else "anonymous"


def describe_admission(peer: Peer | None, rule: str) -> str:
    """Return the fields of the log for a peer and the access rule that admitted it."""
    return f"peer={peer_name(peer, rule)} rule={rule}"


def parse_peer(leaf: Certificate, spiffe_id: SpiffeId | None) -> Peer:
    """Return the facts in a leaf certificate; raises PeerDenied if its subject alternative names are malformed."""
    extensions = leaf.extensions
    common_names = leaf.subject.texts(COMMON_NAME)
    return Peer(
        subject=leaf.subject.describe(),
        spiffe_id=spiffe_id,
        leaf=leaf.der,
        public_key=leaf.key_info,
        common_name=common_names[-1] if common_names else "",  # of several, Go uses the last
        organizational_units=leaf.subject.texts(ORGANIZATIONAL_UNIT),
        dns_names=extensions.dns_names(),
        ip_addresses=extensions.ip_addresses(),
        uris=tuple(_SCHEME.sub(_lower, uri, count=1) for uri in extensions.uris()),
    )


def _lower(match: re.Match[str]) -> str:
    return match.group().lower()  # RFC 3986, 3.1: a scheme is case-insensitive; Go prints it in lower case
