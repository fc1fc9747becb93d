"""The check that a certificate is valid for a host name, by Go's rules (crypto/x509, VerifyHostname; RFC 6125).

OpenSSL's rules differ: it rejects a wildcard directly below a top-level domain, and a host name that begins with a dot matches
every name below it.
"""

from __future__ import annotations

import re

from tunnel.authz.peer import Peer
from tunnel.errors import Denial, IdentityError, IdentityFault, PeerDenied, quote
from tunnel.ip_address import IpAddress, parse_ip_address, unmap_ipv4
from tunnel.lazy_dataclass import dataclass
from tunnel.spiffe.selection import join_names

_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_MOST_NAMES = 4  # of the certificate, in an error message


@dataclass(frozen=True, slots=True)
class HostName:
    """The DNS name or IP address of a server; an address matches IP SANs only."""

    text: str
    address: IpAddress | None

    def check(self, peer: Peer) -> None:
        """Raise PeerDenied unless a DNS or IP SAN of the peer matches; a common name never does."""
        if self.address is not None:
            is_match = any(unmap_ipv4(address) == self.address for address in peer.ip_addresses)
        else:
            is_match = any(matches_host(name, self.text) for name in peer.dns_names)
        if not is_match:
            names = [*map(quote, peer.dns_names), *map(str, peer.ip_addresses)]
            found = join_names(names, _MOST_NAMES) or "none"
            raise PeerDenied(Denial.HOST_NAME, f"hostname mismatch: expected {self.text}, the certificate has {found}")


def parse_host(text: str) -> HostName:
    """Parse a DNS name or an IP address, which may be in brackets; raises IdentityError."""
    address = parse_ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    return HostName(_parse_name(text), None) if address is None else HostName(text, unmap_ipv4(address))


def matches_host(pattern: str, host: str) -> bool:
    """Whether a DNS SAN matches a host name; a wildcard stands for the whole leftmost label."""
    pattern, host = pattern.lower(), host.lower()
    if not (_is_host_name(host.removesuffix(".")) and _is_pattern(pattern)):
        return pattern == host and pattern not in ("", ".")
    wanted, labels = pattern.split("."), host.removesuffix(".").split(".")
    return wanted[1:] == labels[1:] and (wanted[0] in ("*", labels[0]))


def _parse_name(text: str) -> str:
    try:
        name = text if text.isascii() else text.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not name or not name.isprintable():
        raise IdentityError(IdentityFault.BAD_HOST, f"invalid host name {quote(text)}: no certificate can contain it")
    return name


def _is_pattern(name: str) -> bool:
    return _is_host_name(name.removeprefix("*."))


def _is_host_name(name: str) -> bool:
    return all(_LABEL.fullmatch(label) for label in name.split("."))
