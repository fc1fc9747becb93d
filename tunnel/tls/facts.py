"""What a verified certificate says about its bearer.

Knows how the names in a certificate are read; must not know whether it verifies or what the names are good for. The rules
look at these facts only, never at a certificate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from tunnel.authz.peer import Peer
from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.ids import SpiffeId

_NO_NAMES: Mapping[x509.ObjectIdentifier, str] = {}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
# What the library raises for a name or a key that it cannot read, when it is asked for it.
UNREADABLE = (ValueError, TypeError, LookupError)  # LookupError: a kind of string that cryptography 48 does not know


def describe_peer(leaf: x509.Certificate, spiffe_id: SpiffeId | None) -> Peer:
    """The facts in a leaf certificate; raises PeerDenied for one whose names cannot be read."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    except (*UNREADABLE, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion) as error:
        raise PeerDenied(Denial.UNREADABLE, f"extensions cannot be read: {error}") from error
    addresses = names.get_values_for_type(x509.IPAddress)
    common_names = _subject_values(leaf, NameOID.COMMON_NAME)
    return Peer(
        subject=subject_of(leaf),
        spiffe_id=spiffe_id,
        leaf=leaf.public_bytes(Encoding.DER),
        public_key=public_key_of(leaf),
        common_name=common_names[-1] if common_names else "",  # of several Go takes the last
        organizational_units=_subject_values(leaf, NameOID.ORGANIZATIONAL_UNIT_NAME),
        dns_names=tuple(names.get_values_for_type(x509.DNSName)),
        ip_addresses=tuple(address for address in addresses if isinstance(address, IPv4Address | IPv6Address)),
        uris=tuple(_SCHEME.sub(_lower, uri, count=1) for uri in names.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def public_key_of(leaf: x509.Certificate) -> bytes:
    """The DER of a certificate's SubjectPublicKeyInfo, "" where the key is of no kind that we know."""
    try:
        return leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (*UNREADABLE, UnsupportedAlgorithm):
        return b""


def issuer_of(certificate: x509.Certificate, names: Mapping[x509.ObjectIdentifier, str] = _NO_NAMES) -> str:
    """The name of who is said to have signed a certificate, for the log; `names` are for attributes that have no short name."""
    try:
        return certificate.issuer.rfc4514_string(dict(names))
    except UNREADABLE:
        return "(unreadable)"


def subject_of(certificate: x509.Certificate, names: Mapping[x509.ObjectIdentifier, str] = _NO_NAMES) -> str:
    """The subject, likewise; it proves nothing by itself, so one that cannot be read is no reason to refuse."""
    try:
        return certificate.subject.rfc4514_string(dict(names))
    except UNREADABLE:
        return "(unreadable)"


def _lower(match: re.Match[str]) -> str:
    return match.group().lower()  # RFC 3986, 3.1: a scheme has no case; Go prints it in lower case


def _subject_values(leaf: x509.Certificate, oid: x509.ObjectIdentifier) -> tuple[str, ...]:
    try:
        values = [attribute.value for attribute in leaf.subject.get_attributes_for_oid(oid)]
    except UNREADABLE:
        return ()
    return tuple(value for value in values if isinstance(value, str))
