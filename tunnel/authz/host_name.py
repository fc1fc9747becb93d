"""Whether a certificate has the name of the host that is wanted, by Go's rules (crypto/x509, VerifyHostname; RFC 6125).

Knows DNS names, wildcards and addresses; must not know certificates. OpenSSL's own rules differ: it takes no wildcard right
below a top-level name, and a wanted name that begins with a dot for every name below it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunnel.authz.peer import Peer
from tunnel.errors import Denial, IdentityError, IdentityFault, PeerDenied
from tunnel.ip_address import IpAddress, parse_ip_address, unmap_ipv4

_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_SHOWN = 4  # names of a wrong certificate that a refusal tells


@dataclass(frozen=True, slots=True)
class HostName:
    """A name, or an address: then only addresses in the certificate count."""

    text: str
    address: IpAddress | None

    def check(self, peer: Peer) -> None:
        """Raise PeerDenied unless a DNS name or an address of the peer's is this one; a common name never counts."""
        if self.address is not None:
            is_named = any(unmap_ipv4(address) == self.address for address in peer.ip_addresses)
        else:
            is_named = any(is_match(name, self.text) for name in peer.dns_names)
        if not is_named:
            seen = [*peer.dns_names, *map(str, peer.ip_addresses)]
            more = f" and {len(seen) - _SHOWN} more" if len(seen) > _SHOWN else ""
            names = ", ".join(f"{name!a}" for name in seen[:_SHOWN]) or "none"
            raise PeerDenied(Denial.HOST_NAME, f"hostname mismatch: {self.text} is wanted, its names are {names}{more}")


def parse_host(text: str) -> HostName:
    """The host by this name or address, which may stand in brackets; raises IdentityError for what can be neither."""
    address = parse_ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    return HostName(_parse_name(text), None) if address is None else HostName(text, unmap_ipv4(address))


def is_match(pattern: str, host: str) -> bool:
    """Whether a DNS name of a certificate is meant by a host's name; a wildcard is the whole label at the left."""
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
        raise IdentityError(IdentityFault.BAD_HOST, f"{text!a} is no name that a certificate could have")
    return name


def _is_pattern(name: str) -> bool:
    return _is_host_name(name.removeprefix("*."))


def _is_host_name(name: str) -> bool:
    return all(_LABEL.fullmatch(label) for label in name.split("."))
