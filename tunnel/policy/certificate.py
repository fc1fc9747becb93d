"""A certificate as Go's encoding/json writes crypto/x509.Certificate, which is what policies are written for.

Knows the fields of that type and their numbers; must not know policies or who asks. Three things differ on purpose. Times
end in `+00:00`, not in `Z`: both are RFC 3339, and the engine's time.parse_rfc3339_ns reads only the first. Name
constraints, policy constraints and policy mappings, which are for authorities, are always unset. Keys of other kinds than
RSA, ECDSA and Ed25519 are null, with the number 0 for their algorithm.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass

from tunnel.errors import Denial, PeerDenied, WireError, WireFault
from tunnel.policy import der
from tunnel.policy.dates import encode_time
from tunnel.policy.der import Value
from tunnel.policy.extensions import encode_extensions
from tunnel.policy.key import encode_key, signature_algorithm
from tunnel.policy.name import encode_name

Json = dict[str, object]

# Slices that a leaf does not set, or that Go sets only when it makes certificates.
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
_EXTENSIONS_TAG, _VERSION_TAG = 0xA3, 0xA0


@dataclass(frozen=True, slots=True)
class _Parts:
    """The fields of a TBSCertificate that come one after the other (RFC 5280, 4.1.2)."""

    version: int
    serial: Value
    algorithm: Value
    issuer: Value
    validity: Value
    subject: Value
    key: Value
    extensions: bytes | None


def encode_certificate(certificate: bytes) -> str:
    """The JSON text of a certificate in DER; raises PeerDenied for one that Go would not read."""
    try:
        return json.dumps(_encode(certificate))
    except WireError as error:
        raise PeerDenied(Denial.UNREADABLE, f"for the policy: {error}") from error


def _encode(certificate: bytes) -> Json:
    outer = der.read_sequence(certificate)
    if len(outer) != 3:
        raise WireError(WireFault.MALFORMED, f"a certificate of {len(outer)} parts, not 3")
    parts = _split(outer[0])
    if parts.algorithm.whole != outer[1].whole:
        raise WireError(WireFault.MALFORMED, "two different signature algorithms in one certificate")
    begin, end = _pair(parts.validity)
    fields: Json = {
        "Raw": base64(certificate),
        "RawTBSCertificate": base64(outer[0].whole),
        "RawSubjectPublicKeyInfo": base64(parts.key.whole),
        "RawSubject": base64(parts.subject.whole),
        "RawIssuer": base64(parts.issuer.whole),
        "Signature": base64(_right_aligned(outer[2])),
        "SignatureAlgorithm": signature_algorithm(parts.algorithm),
        **encode_key(parts.key),
        "Version": parts.version,
        "SerialNumber": _serial(parts.serial),
        "Issuer": encode_name(parts.issuer),
        "Subject": encode_name(parts.subject),
        "NotBefore": encode_time(begin),
        "NotAfter": encode_time(end),
        **encode_extensions(parts.extensions),
    }
    fields |= dict.fromkeys(_UNSET) | {"PermittedDNSDomainsCritical": False}
    return fields | dict.fromkeys(_ZERO, 0) | {f"{name}Zero": False for name in _ZERO}


def base64(data: bytes) -> str:
    """Bytes as encoding/json writes them."""
    return b64encode(data).decode("ascii")


def _split(body: Value) -> _Parts:
    values = list(der.read_values(der.expect(body, der.SEQUENCE).body))
    version = 1
    if values and values[0].tag == _VERSION_TAG:
        version = 1 + der.as_integer(der.read_value(values.pop(0).body, der.INTEGER))
    if len(values) < 6 or not 1 <= version <= 3:
        raise WireError(WireFault.MALFORMED, "a certificate without all of its fields, or of an unknown version")
    extensions = next((value.body for value in values[6:] if value.tag == _EXTENSIONS_TAG), None)
    serial, algorithm, issuer, validity, subject, key = values[:6]
    return _Parts(version, serial, algorithm, issuer, validity, subject, key, extensions if version == 3 else None)


def _pair(validity: Value) -> tuple[Value, Value]:
    times = tuple(der.read_values(der.expect(validity, der.SEQUENCE).body))
    if len(times) != 2:
        raise WireError(WireFault.MALFORMED, f"a validity of {len(times)} dates, not 2")
    return times[0], times[1]


def _serial(value: Value) -> int:
    serial = der.as_integer(value)
    if serial < 0 or len(value.body) > 64:  # RFC 5280 says 20 bytes; a number of any size would take long to write
        raise WireError(WireFault.MALFORMED, "a serial number that is negative or longer than 64 bytes")
    return serial


def _right_aligned(value: Value) -> bytes:
    bits, unused = der.as_bits(value)
    return (int.from_bytes(bits, "big") >> unused).to_bytes(len(bits), "big")
