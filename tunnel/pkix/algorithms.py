"""The algorithm identifiers of keys and signatures (RFC 5280, 4.1.1.2; RFC 4055)."""

from __future__ import annotations

from tunnel.errors import WireError, WireFault
from tunnel.lazy_dataclass import dataclass
from tunnel.pkix import der
from tunnel.pkix.der import DerValue

# Object identifiers, as the content of their DER.
RSA = bytes.fromhex("2a864886f70d010101")
RSASSA_PSS = bytes.fromhex("2a864886f70d01010a")
EC = bytes.fromhex("2a8648ce3d0201")
_MGF1 = bytes.fromhex("2a864886f70d010108")
_DIGEST, _MASK, _SALT, _TRAILER = 0xA0, 0xA1, 0xA2, 0xA3  # the tags of the parameters of RSASSA-PSS


@dataclass(frozen=True, slots=True)
class Algorithm:
    """An AlgorithmIdentifier: the content of its object identifier, and its parameters in DER, empty if absent."""

    oid: bytes
    parameters: bytes


@dataclass(frozen=True, slots=True)
class PssParameters:
    """The parameters of RSASSA-PSS with MGF1 and one digest for message and mask (RFC 4055, 3.1)."""

    digest: bytes  # object identifier
    salt_size: int | None  # None is the default, 20
    has_trailer: bool


def parse_algorithm(value: DerValue) -> Algorithm:
    """Parse an AlgorithmIdentifier; raises WireError."""
    parts = der.children(value)
    if not 1 <= len(parts) <= 2:
        raise WireError(WireFault.MALFORMED, f"an algorithm of {len(parts)} parts; expected 1 or 2")
    return Algorithm(der.expect(parts[0], der.OID).body, parts[1].whole if len(parts) == 2 else b"")


def parse_key_info(key_info: bytes) -> tuple[Algorithm, bytes]:
    """Return the algorithm and the key of a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7); raises WireError."""
    parts = der.read_sequence(key_info)
    if len(parts) != 2:
        raise WireError(WireFault.MALFORMED, f"a public key of {len(parts)} parts; expected 2")
    bits, unused = der.as_bits(parts[1])
    if unused:
        raise WireError(WireFault.MALFORMED, "a public key that is not whole bytes")
    return parse_algorithm(parts[0]), bits


def parse_pss(parameters: bytes) -> PssParameters:
    """Parse the parameters of RSASSA-PSS; raises WireError, also if the mask uses another digest."""
    fields = {value.tag: value.body for value in der.read_sequence(parameters)}
    digest = parse_algorithm(der.read_value(fields.get(_DIGEST, b""), der.SEQUENCE))
    mask = parse_algorithm(der.read_value(fields.get(_MASK, b""), der.SEQUENCE))
    mask_digest = parse_algorithm(der.read_value(mask.parameters, der.SEQUENCE))
    if mask.oid != _MGF1 or mask_digest.oid != digest.oid:
        raise WireError(WireFault.MALFORMED, "unsupported mask generation function or digest")
    salt = der.as_integer(der.read_value(fields[_SALT], der.INTEGER)) if _SALT in fields else None
    return PssParameters(digest.oid, salt, _TRAILER in fields)
