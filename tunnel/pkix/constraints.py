"""Name constraints: the names that the certificates below an authority may have (RFC 5280, 4.2.1.10)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tunnel.errors import Denial, PeerDenied, WireError
from tunnel.ip_address import parse_ip_address
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.der import DerValue
from tunnel.pkix.extensions import DIRECTORY, DNS, EMAIL, IP, URI, NameConstraints, parse_text
from tunnel.pkix.names import COMMON_NAME, Attribute, Name

_MOST_COMPARISONS = 20_000  # of a name and a subtree, for each authority of a path
_EMPTY_NAME = b"\x30\x00"
_HOST = re.compile(r"[A-Za-z0-9_*-]+(\.[A-Za-z0-9_-]+)+\.?")
_URI_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(\[[^\]/?#]*\]|[^:/?#]*)")
_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_SHOWN = 100  # characters of a name in a message

Match = Callable[[DerValue, DerValue, bool], bool]  # name, base of a subtree, whether the subtree is excluded


def check_name_constraints(path: Sequence[Certificate], at: int) -> None:
    """Check the names of every certificate below `path[at]`, leaf first, against its name constraints; raises PeerDenied.

    A self-issued intermediate is exempt (RFC 5280, 6.1.3 b).
    """
    constraints = path[at].extensions.name_constraints()
    if constraints is None:
        return
    names = [
        name for depth, one in enumerate(path[:at]) if not (depth and one.is_self_issued) for name in _names_of(one, depth)
    ]
    if len(names) * (len(constraints.permitted) + len(constraints.excluded)) > _MOST_COMPARISONS:
        raise PeerDenied(Denial.BAD_PATH, f"name constraints with too many comparisons for {len(names)} names")
    try:
        for base in (*constraints.permitted, *constraints.excluded):
            _check_base(base)
        for name in names:
            _check_name(constraints, name)
    except (WireError, ValueError) as error:
        raise PeerDenied(Denial.UNREADABLE, f"a name cannot be compared with the name constraints: {error}") from error


def _check_base(base: DerValue) -> None:
    """Check that the base of a subtree is valid; raises ValueError or WireError."""
    if base.tag == IP:
        _parse_network(base)
    elif base.tag == DIRECTORY:
        _canonical(base)
    elif base.tag in (DNS, URI, EMAIL):
        host = _host(base).rpartition("@")[2].removeprefix(".")
        if host and not _DOMAIN.fullmatch(host):
            raise ValueError("an invalid host in a subtree")


def _check_name(constraints: NameConstraints, name: DerValue) -> None:
    permitted = [base for base in constraints.permitted if base.tag == name.tag]
    excluded = [base for base in constraints.excluded if base.tag == name.tag]
    match = _MATCHES.get(name.tag)
    if match is None:
        if constraints.is_critical and (permitted or excluded):  # RFC 5280, 4.2.1.10
            raise PeerDenied(Denial.BAD_PATH, f"its name constraints apply to a name of an unknown type 0x{name.tag:02x}")
        return
    if permitted and not any(match(name, base, False) for base in permitted):
        raise PeerDenied(Denial.BAD_PATH, f"its name constraints do not permit the name {_describe(name)}")
    if any(match(name, base, True) for base in excluded):
        raise PeerDenied(Denial.BAD_PATH, f"its name constraints exclude the name {_describe(name)}")


def _describe(name: DerValue) -> str:
    text = Name(name.body).describe() if name.tag == DIRECTORY else name.body.decode("latin-1")
    return ascii(text[:_SHOWN])


def _names_of(certificate: Certificate, depth: int) -> list[DerValue]:
    """Return the SANs, the subject, and for a leaf without a DNS SAN a common name that looks like a host."""
    names = list(certificate.extensions.subject_names())
    if certificate.subject.der != _EMPTY_NAME:
        names.append(DerValue(DIRECTORY, certificate.subject.der, b""))
    if depth == 0 and not any(name.tag == DNS for name in names):
        hosts = [text for text in certificate.subject.texts(COMMON_NAME) if _HOST.fullmatch(text)]
        names += [DerValue(DNS, text.encode("ascii"), b"") for text in hosts]
    return names


def _match_dns(name: DerValue, base: DerValue, is_excluded: bool) -> bool:
    """Match a DNS name. A wildcard is compared like any other label, and excluded if a name that it matches is excluded."""
    host, limit = _host(name), _host(base)
    if not _DOMAIN.fullmatch(host.removeprefix("*.")):
        raise ValueError("an invalid DNS name")
    if is_excluded and host.startswith("*.") and limit.partition(".")[2] == host[2:] and limit.count("."):
        return True
    return _is_within(host, limit)


def _match_email(name: DerValue, base: DerValue, is_excluded: bool) -> bool:
    """Match a mailbox against a mailbox, a host, or a domain (with a leading dot)."""
    (local, _, host), limit = parse_text(name).rpartition("@"), parse_text(base)
    if not local or not _DOMAIN.fullmatch(host.lower()):
        raise ValueError("an invalid mailbox")
    if "@" in limit:
        wanted, _, at = limit.rpartition("@")
        return local == wanted and host.lower() == at.lower()
    return _match_host(host.lower(), limit.lower(), is_excluded)


def _match_uri(name: DerValue, base: DerValue, is_excluded: bool) -> bool:
    """Match the host of a URI, which must be a name."""
    match = _URI_HOST.match(parse_text(name))
    host = match[1].lower().removesuffix(".") if match else ""
    if not host or host.startswith("[") or parse_ip_address(host) is not None:
        raise ValueError("a URI without a host name")
    return _match_host(host, parse_text(base).lower().removesuffix("."), is_excluded)


def _match_host(host: str, limit: str, is_excluded: bool) -> bool:
    """Match a host, or with a leading dot the hosts below it. An exclusion covers the hosts below as well, as in Go."""
    return host == limit or ((is_excluded or limit.startswith(".") or not limit) and _is_within(host, limit))


def _is_within(host: str, limit: str) -> bool:
    """Whether a host is in a domain; with a leading dot only below it."""
    return not limit or host == limit or host.endswith(limit if limit.startswith(".") else f".{limit}")


def _match_ip(name: DerValue, base: DerValue, _is_excluded: bool) -> bool:
    """Match an address against a network. Bits of the network beyond its mask are ignored."""
    address, (net, mask) = name.body, _parse_network(base)
    if len(address) not in (4, 16):
        raise ValueError("an invalid IP address")
    return len(address) == len(net) and all((a ^ n) & m == 0 for a, n, m in zip(address, net, mask, strict=True))


def _parse_network(base: DerValue) -> tuple[bytes, bytes]:
    net, mask = base.body[: len(base.body) // 2], base.body[len(base.body) // 2 :]
    if len(base.body) not in (8, 32) or "01" in f"{int.from_bytes(mask, 'big'):0{8 * len(mask)}b}":
        raise ValueError("an invalid network")
    return net, mask


def _match_directory(name: DerValue, base: DerValue, _is_excluded: bool) -> bool:
    """Match a distinguished name that begins with the base."""
    parts, wanted = _canonical(name), _canonical(base)
    return parts[: len(wanted)] == wanted


def _canonical(name: DerValue) -> list[frozenset[tuple[object, ...]]]:
    """Return a name without differences of case, string type and repeated spaces (RFC 5280, 7.1)."""
    return [frozenset(map(_canonical_attribute, group)) for group in Name(name.body).groups()]


def _canonical_attribute(attribute: Attribute) -> tuple[object, ...]:
    try:
        return attribute.oid, " ".join(attribute.text().casefold().split())
    except WireError:
        return attribute.oid, attribute.value.whole


def _host(name: DerValue) -> str:
    return parse_text(name).lower().removesuffix(".")


_MATCHES: dict[int, Match] = {
    DNS: _match_dns,
    EMAIL: _match_email,
    URI: _match_uri,
    IP: _match_ip,
    DIRECTORY: _match_directory,
}
