"""A certificate in the JSON of Go's `crypto/x509.Certificate`, the input that ghostunnel's policies are written for.

Differences from Go: times end in `+00:00` instead of `Z`, because the engine's `time.parse_rfc3339_ns` accepts only that; name
constraints, policy constraints and policy mappings are unset; keys other than RSA, ECDSA and Ed25519 are null.

The parser is `tunnel.pkix`, not `cryptography.x509`: of the 1028 leaves in `tests/odd_certificates`, version 50 rejects 44 that
verify and that Go parses, such as one with an explicit `cA FALSE`, and it does not give the original bytes of an extension.
"""

from __future__ import annotations

import json
from base64 import b64encode

from tunnel.errors import Denial, PeerDenied, WireError, WireFault
from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.pkix.names import Name
from tunnel.policy.extensions import encode_extensions
from tunnel.policy.key import encode_key, signature_algorithm

Json = dict[str, object]

_MAX_SERIAL_BITS = 512  # RFC 5280 allows 160; converting a number of any size to decimal takes long
# Slices that a leaf does not set, or that Go sets only when it creates certificates.
_UNSET = (
    "ExtraExtensions",
    "PermittedDNSDomains",
    "ExcludedDNSDomains",
    "PermittedIPRanges",
    "ExcludedIPRanges",
    "PermittedEmailAddresses",
    "ExcludedEmailAddresses",
    "PermittedURIDomains",
    "ExcludedURIDomains",
    "PolicyMappings",
)
_ZERO = ("InhibitAnyPolicy", "InhibitPolicyMapping", "RequireExplicitPolicy")
# The attributes of a name that have fields of their own in pkix.Name: several values, and one of which the last counts.
_X520 = (2, 5, 4)
_NAME_LISTS = {
    6: "Country",
    10: "Organization",
    11: "OrganizationalUnit",
    7: "Locality",
    8: "Province",
    9: "StreetAddress",
    17: "PostalCode",
}
_NAME_TEXTS = {5: "SerialNumber", 3: "CommonName"}


def encode_certificate(certificate: bytes) -> str:
    """Return the JSON of a certificate in DER; raises PeerDenied for one that Go does not parse."""
    try:
        return json.dumps(_encode(parse_certificate(certificate)), default=_encode_bytes)
    except WireError as error:
        raise PeerDenied(Denial.UNREADABLE, f"for the policy: {error}") from error


def _encode_bytes(value: object) -> str:
    """Return bytes in base64, as encoding/json does."""
    assert isinstance(value, bytes)
    return b64encode(value).decode("ascii")


def _encode(certificate: Certificate) -> Json:
    serial = certificate.serial_number
    if serial < 0 or serial.bit_length() > _MAX_SERIAL_BITS:
        raise WireError(WireFault.MALFORMED, f"a serial number that is negative or longer than {_MAX_SERIAL_BITS} bits")
    fields: Json = {
        "Raw": certificate.der,
        "RawTBSCertificate": certificate.tbs,
        "RawSubjectPublicKeyInfo": certificate.key_info,
        "RawSubject": certificate.subject.der,
        "RawIssuer": certificate.issuer.der,
        "Signature": certificate.signature,
        "SignatureAlgorithm": signature_algorithm(certificate.algorithm),
        **encode_key(certificate.key_info),
        "Version": certificate.version,
        "SerialNumber": serial,
        "Issuer": _encode_name(certificate.issuer),
        "Subject": _encode_name(certificate.subject),
        "NotBefore": certificate.not_before.isoformat(),
        "NotAfter": certificate.not_after.isoformat(),
        **encode_extensions(certificate.extensions),
    }
    fields |= dict.fromkeys(_UNSET) | {"PermittedDNSDomainsCritical": False}
    return fields | dict.fromkeys(_ZERO, 0) | {f"{name}Zero": False for name in _ZERO}


def _encode_name(name: Name) -> Json:
    """Return the fields of pkix.Name."""
    attributes = [(attribute.oid, attribute.text()) for group in name.groups() for attribute in group]
    fields: Json = {}
    for number, field in _NAME_LISTS.items():
        fields[field] = [text for oid, text in attributes if oid == (*_X520, number)] or None
    for number, field in _NAME_TEXTS.items():
        fields[field] = ([text for oid, text in attributes if oid == (*_X520, number)] or [""])[-1]
    names = [{"Type": oid, "Value": text} for oid, text in attributes]
    return fields | {"Names": names or None, "ExtraNames": None}
