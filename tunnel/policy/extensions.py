"""The extensions of a certificate, raw and as the fields of Go's `crypto/x509.Certificate`."""

from __future__ import annotations

from collections.abc import Callable

from tunnel.errors import WireError, WireFault
from tunnel.ip_address import unmap_ipv4
from tunnel.pkix import der
from tunnel.pkix.extensions import (
    DNS,
    EMAIL,
    IP,
    URI,
    Extensions,
    parse_address,
    parse_basic_constraints,
    parse_oids,
    parse_policies,
    parse_text,
)
from tunnel.policy.go_url import parse_url

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


def encode_extensions(extensions: Extensions) -> Json:
    """Return the field Extensions and the fields that Go parses from them; raises WireError."""
    fields = dict(_NO_FIELDS)
    raw, unknown = [], []
    for body, extension in extensions.found.items():
        oid = der.oid_of(body)
        raw.append({"Id": oid, "Critical": extension.is_critical, "Value": extension.value})
        read = _READERS.get(oid)
        parsed = read(extension.value) if read else {}
        fields |= parsed
        if extension.is_critical and not any(parsed.values()) and oid not in _ALWAYS_UNDERSTOOD:
            unknown.append(oid)
    return fields | {"Extensions": raw or None, "UnhandledCriticalExtensions": unknown or None}


def _key_usage(value: bytes) -> Json:
    """Go numbers the bits from the first one (RFC 5280, 4.2.1.3)."""
    bits, _ = der.as_bits(der.read_value(value, der.BIT_STRING))
    return {"KeyUsage": sum(1 << at for at in range(min(9, 8 * len(bits))) if bits[at // 8] & 0x80 >> at % 8)}


def _basic_constraints(value: bytes) -> Json:
    constraints = parse_basic_constraints(value)
    length = -1 if constraints.max_path is None else constraints.max_path  # -1 is unset in Go
    if length >= 2**63:
        raise WireError(WireFault.MALFORMED, "a path length of more than 63 bits")
    return {
        "BasicConstraintsValid": True,
        "IsCA": constraints.is_ca,
        "MaxPathLen": length,
        "MaxPathLenZero": length == 0,
    }


def _purposes(value: bytes) -> Json:
    oids = [der.oid_of(body) for body in parse_oids(value)]
    known = [_PURPOSES[oid] for oid in oids if oid in _PURPOSES]
    return {"ExtKeyUsage": known or None, "UnknownExtKeyUsage": [oid for oid in oids if oid not in _PURPOSES] or None}


def _names(value: bytes) -> Json:
    """Return the subject alternative names of the four kinds that Go parses (RFC 5280, 4.2.1.6)."""
    names = der.read_sequence(value)
    return {
        "DNSNames": [parse_text(name) for name in names if name.tag == DNS] or None,
        "EmailAddresses": [parse_text(name) for name in names if name.tag == EMAIL] or None,
        "IPAddresses": [str(unmap_ipv4(parse_address(name))) for name in names if name.tag == IP] or None,
        "URIs": [parse_url(parse_text(name)) for name in names if name.tag == URI] or None,
    }


def _subject_key_id(value: bytes) -> Json:
    return {"SubjectKeyId": der.read_value(value, der.OCTET_STRING).body}


def _authority_key_id(value: bytes) -> Json:
    parts = der.read_sequence(value)
    return {"AuthorityKeyId": parts[0].body} if parts and parts[0].tag == 0x80 else {}


def _authority_info(value: bytes) -> Json:
    pairs = [der.children(each) for each in der.read_sequence(value)]
    if any(len(pair) != 2 for pair in pairs):
        raise WireError(WireFault.MALFORMED, "an access description without exactly a method and a location")
    places = [(der.as_oid(method), parse_text(place)) for method, place in pairs if place.tag == URI]
    return {
        "OCSPServer": [place for method, place in places if method == _OCSP] or None,
        "IssuingCertificateURL": [place for method, place in places if method == _ISSUERS] or None,
    }


def _distribution_points(value: bytes) -> Json:
    found = []
    for point in der.read_sequence(value):
        for part in der.children(point):
            names = [name for name in der.read_values(part.body) if name.tag == 0xA0] if part.tag == 0xA0 else []
            found += [parse_text(uri) for name in names for uri in der.read_values(name.body) if uri.tag == URI]
    return {"CRLDistributionPoints": found or None}


def _policies(value: bytes) -> Json:
    oids = [der.oid_of(body) for body in parse_policies(value)]
    small = [oid for oid in oids if max(oid) < 2**31]  # those that an asn1.ObjectIdentifier can hold
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
_ALWAYS_UNDERSTOOD = frozenset(_READERS) - {(*_CE, 17)}  # names of unknown kinds only are not understood
