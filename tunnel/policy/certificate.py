"""A certificate as Go's encoding/json writes crypto/x509.Certificate, which is what policies are written for.

Knows the fields of that type and their numbers; must not know policies or who asks. Three things differ on purpose. Times
end in `+00:00`, not in `Z`: both are RFC 3339, and the engine's time.parse_rfc3339_ns reads only the first. Name
constraints, policy constraints and policy mappings, which are for authorities, are always unset. Keys of other kinds than
RSA, ECDSA and Ed25519 are null, with the number 0 for their algorithm.
"""

from __future__ import annotations

import json
from base64 import b64encode

from tunnel.errors import Denial, PeerDenied, WireError, WireFault
from tunnel.pkix import der
from tunnel.pkix.certificate import split_certificate
from tunnel.pkix.dates import parse_time
from tunnel.pkix.der import DerValue
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


def encode_certificate(certificate: bytes) -> str:
    """The JSON text of a certificate in DER; raises PeerDenied for one that Go would not read."""
    try:
        return json.dumps(_encode(certificate))
    except WireError as error:
        raise PeerDenied(Denial.UNREADABLE, f"for the policy: {error}") from error


def _encode(certificate: bytes) -> Json:
    tbs, parts, signature = split_certificate(certificate)
    begin, end = parts.validity
    fields: Json = {
        "Raw": base64(certificate),
        "RawTBSCertificate": base64(tbs.whole),
        "RawSubjectPublicKeyInfo": base64(parts.key_info.whole),
        "RawSubject": base64(parts.subject.whole),
        "RawIssuer": base64(parts.issuer.whole),
        "Signature": base64(_right_aligned(signature)),
        "SignatureAlgorithm": signature_algorithm(parts.algorithm),
        **encode_key(parts.key_info),
        "Version": parts.version,
        "SerialNumber": _serial(parts.serial),
        "Issuer": encode_name(parts.issuer),
        "Subject": encode_name(parts.subject),
        "NotBefore": parse_time(begin).isoformat(),
        "NotAfter": parse_time(end).isoformat(),
        **encode_extensions(parts.extensions),
    }
    fields |= dict.fromkeys(_UNSET) | {"PermittedDNSDomainsCritical": False}
    return fields | dict.fromkeys(_ZERO, 0) | {f"{name}Zero": False for name in _ZERO}


def base64(data: bytes) -> str:
    """Bytes as encoding/json writes them."""
    return b64encode(data).decode("ascii")


def _serial(value: DerValue) -> int:
    serial = der.as_integer(value)
    if serial < 0 or len(value.body) > 64:  # RFC 5280 says 20 bytes; a number of any size would take long to write
        raise WireError(WireFault.MALFORMED, "a serial number that is negative or longer than 64 bytes")
    return serial


def _right_aligned(value: DerValue) -> bytes:
    bits, unused = der.as_bits(value)
    return (int.from_bytes(bits, "big") >> unused).to_bytes(len(bits), "big")
