"""What a verified certificate says about its bearer. The rules look at these facts only, never at a certificate."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from tunnel.authz.peer import Peer
from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.extensions import IP
from tunnel.pkix.names import COMMON_NAME, ORGANIZATIONAL_UNIT
from tunnel.spiffe.ids import SpiffeId

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")


def describe_peer(leaf: Certificate, spiffe_id: SpiffeId | None) -> Peer:
    """The facts in a leaf certificate; raises PeerDenied for one whose alternative names cannot be read."""
    extensions = leaf.extensions
    common_names = leaf.subject.texts(COMMON_NAME)
    return Peer(
        subject=leaf.subject.describe(),
        spiffe_id=spiffe_id,
        leaf=leaf.der,
        public_key=leaf.key_info,
        common_name=common_names[-1] if common_names else "",  # of several Go takes the last
        organizational_units=leaf.subject.texts(ORGANIZATIONAL_UNIT),
        dns_names=extensions.dns_names(),
        ip_addresses=tuple(_parse_address(name.body) for name in extensions.subject_names() if name.tag == IP),
        uris=tuple(_SCHEME.sub(_lower, uri, count=1) for uri in extensions.uris()),
    )


def _parse_address(body: bytes) -> IPv4Address | IPv6Address:
    if len(body) not in (4, 16):
        raise PeerDenied(Denial.UNREADABLE, f"an IP address of {len(body)} bytes among its names")
    return IPv4Address(body) if len(body) == 4 else IPv6Address(body)


def _lower(match: re.Match[str]) -> str:
    return match.group().lower()  # RFC 3986, 3.1: a scheme has no case; Go prints it in lower case
