"""The extensions of a certificate, raw and as the fields that Go makes of them.

Knows RFC 5280, 4.2 as far as it concerns leaves; must not know which of them a peer should have.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tunnel.errors import WireError, WireFault
from tunnel.ip_address import unmap_ipv4
from tunnel.pkix import der
from tunnel.pkix.der import DerValue
from tunnel.pkix.extensions import parse_extension
from tunnel.policy.url import parse_url

Oid = tuple[int, ...]
Json = dict[str, object]

_CE = (2, 5, 29)
_KP, _MS = (1, 3, 6, 1, 5, 5, 7, 3), (1, 3, 6, 1, 4, 1, 311)
_PURPOSES: dict[Oid, int] = {
    (*_CE, 37, 0): 0,
    **{(*_KP, number): number for number in range(1, 8)},
    (*_KP, 8): 8,
    (*_KP, 9): 9,
    (*_MS, 10, 3, 3): 10,
    (2, 16, 840, 1, 113730, 4, 1): 11,
    (*_MS, 2, 1, 22): 12,
    (*_MS, 61, 1, 1): 13,
}
_AUTHORITY_INFO: Oid = (1, 3, 6, 1, 5, 5, 7, 1, 1)
_OCSP, _ISSUERS = (1, 3, 6, 1, 5, 5, 7, 48, 1), (1, 3, 6, 1, 5, 5, 7, 48, 2)
_EMAIL, _DNS, _URI, _IP = 0x81, 0x82, 0x86, 0x87
_NO_FIELDS: Json = {
    "KeyUsage": 0,
    "ExtKeyUsage": None,
    "UnknownExtKeyUsage": None,
    "BasicConstraintsValid": False,
    "IsCA": False,
    "MaxPathLen": 0,
    "MaxPathLenZero": False,
    "SubjectKeyId": None,
    "AuthorityKeyId": None,
    "OCSPServer": None,
    "IssuingCertificateURL": None,
    "DNSNames": None,
    "EmailAddresses": None,
    "IPAddresses": None,
    "URIs": None,
    "CRLDistributionPoints": None,
    "PolicyIdentifiers": None,
    "Policies": None,
}


@dataclass(frozen=True, slots=True)
class _Extension:
    oid: Oid
    is_critical: bool
    value: bytes


def encode_extensions(extensions: bytes | None) -> Json:
    """The field Extensions and the fields that stand for what is in them; raises WireError."""
    found = [_parse(value) for value in der.read_sequence(extensions)] if extensions is not None else []
    if len({extension.oid for extension in found}) != len(found):
        raise WireError(WireFault.MALFORMED, "an extension that comes twice")
    fields = dict(_NO_FIELDS)
    unknown = []
    for extension in found:
        read = _READERS.get(extension.oid)
        made = read(extension.value) if read else {}
        fields |= made
        if extension.is_critical and not any(made.values()) and extension.oid not in _ALWAYS_UNDERSTOOD:
            unknown.append(extension.oid)
    raw = [{"Id": each.oid, "Critical": each.is_critical, "Value": _base64(each.value)} for each in found]
    return fields | {"Extensions": raw or None, "UnhandledCriticalExtensions": unknown or None}


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _parse(value: DerValue) -> _Extension:
    oid, extension = parse_extension(value)
    return _Extension(der.as_oid(DerValue(der.OID, oid, b"")), extension.is_critical, extension.value)


def _key_usage(value: bytes) -> Json:
    """Go counts the bits from the first one (RFC 5280, 4.2.1.3)."""
    bits, _ = der.as_bits(der.read_value(value, der.BIT_STRING))
    return {"KeyUsage": sum(1 << at for at in range(min(9, 8 * len(bits))) if bits[at // 8] & 0x80 >> at % 8)}


def _basic_constraints(value: bytes) -> Json:
    parts = list(der.read_sequence(value))
    is_ca = bool(parts) and parts[0].tag == der.BOOLEAN and der.as_boolean(parts.pop(0))
    length = der.as_integer(parts[0]) if parts else -1  # -1 is Go's word for "not said"
    if length < -1 or (parts and length < 0) or length >= 2**63:
        raise WireError(WireFault.MALFORMED, "a path length that is none")
    return {"BasicConstraintsValid": True, "IsCA": is_ca, "MaxPathLen": length, "MaxPathLenZero": length == 0}


def _purposes(value: bytes) -> Json:
    oids = [der.as_oid(each) for each in der.read_sequence(value)]
    known = [_PURPOSES[oid] for oid in oids if oid in _PURPOSES]
    return {"ExtKeyUsage": known or None, "UnknownExtKeyUsage": [oid for oid in oids if oid not in _PURPOSES] or None}


def _names(value: bytes) -> Json:
    """The alternative names of the four kinds that Go reads (RFC 5280, 4.2.1.6)."""
    names = der.read_sequence(value)
    return {
        "DNSNames": [_ia5(name) for name in names if name.tag == _DNS] or None,
        "EmailAddresses": [_ia5(name) for name in names if name.tag == _EMAIL] or None,
        "IPAddresses": [_address(name.body) for name in names if name.tag == _IP] or None,
        "URIs": [parse_url(_ia5(name)) for name in names if name.tag == _URI] or None,
    }


def _ia5(name: DerValue) -> str:
    try:
        return name.body.decode("ascii")
    except UnicodeDecodeError as error:
        raise WireError(WireFault.NOT_TEXT, "an alternative name that is not ASCII") from error


def _address(body: bytes) -> str:
    """As Go writes it: an IPv4 address in IPv6's clothes loses them."""
    if len(body) == 4:
        return str(IPv4Address(body))
    if len(body) != 16:
        raise WireError(WireFault.MALFORMED, f"an IP address of {len(body)} bytes")
    return str(unmap_ipv4(IPv6Address(body)))


def _subject_key_id(value: bytes) -> Json:
    return {"SubjectKeyId": _base64(der.read_value(value, der.OCTET_STRING).body)}


def _authority_key_id(value: bytes) -> Json:
    parts = der.read_sequence(value)
    return {"AuthorityKeyId": _base64(parts[0].body)} if parts and parts[0].tag == 0x80 else {}


def _authority_info(value: bytes) -> Json:
    fields: Json = {}
    for field, method in (("OCSPServer", _OCSP), ("IssuingCertificateURL", _ISSUERS)):
        pairs = [tuple(der.read_values(der.expect(each, der.SEQUENCE).body)) for each in der.read_sequence(value)]
        if any(len(pair) != 2 for pair in pairs):
            raise WireError(WireFault.MALFORMED, "an access description that is not a method and a place")
        fields[field] = [_ia5(place) for kind, place in pairs if place.tag == _URI and der.as_oid(kind) == method] or None
    return fields


def _distribution_points(value: bytes) -> Json:
    found = []
    for point in der.read_sequence(value):
        for part in der.read_values(der.expect(point, der.SEQUENCE).body):
            names = [name for name in der.read_values(part.body) if name.tag == 0xA0] if part.tag == 0xA0 else []
            found += [_ia5(uri) for name in names for uri in der.read_values(name.body) if uri.tag == _URI]
    return {"CRLDistributionPoints": found or None}


def _policies(value: bytes) -> Json:
    parts = [tuple(der.read_values(der.expect(each, der.SEQUENCE).body)) for each in der.read_sequence(value)]
    if not all(parts):
        raise WireError(WireFault.MALFORMED, "a certificate policy without a name")
    oids = [der.as_oid(part[0]) for part in parts]
    small = [oid for oid in oids if max(oid) < 2**31]  # what fits into an asn1.ObjectIdentifier
    return {"PolicyIdentifiers": small, "Policies": [".".join(map(str, oid)) for oid in oids] or None}


_READERS: dict[Oid, Callable[[bytes], Json]] = {
    (*_CE, 14): _subject_key_id,
    (*_CE, 15): _key_usage,
    (*_CE, 17): _names,
    (*_CE, 19): _basic_constraints,
    (*_CE, 31): _distribution_points,
    (*_CE, 32): _policies,
    (*_CE, 35): _authority_key_id,
    (*_CE, 37): _purposes,
    _AUTHORITY_INFO: _authority_info,
}
_ALWAYS_UNDERSTOOD = frozenset(_READERS) - {(*_CE, 17)}  # names of no kind that is read are not understood
