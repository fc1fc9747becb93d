"""One certificate, read from its DER once (RFC 5280, 4.1).

Strict about the fields that every rule needs, and silent about the rest: what a name, a key or an extension says is read
when a rule asks for it.
"""

from __future__ import annotations

from base64 import encodebytes
from dataclasses import dataclass, field
from datetime import datetime

from tunnel.errors import WireError, WireFault
from tunnel.pkix import der
from tunnel.pkix.dates import parse_time
from tunnel.pkix.der import DerValue
from tunnel.pkix.extensions import Extensions, parse_extensions
from tunnel.pkix.names import Name

_VERSION_TAG, _EXTENSIONS_TAG = 0xA0, 0xA3
_UNIQUE_ID_TAGS = (0x81, 0x82)
_NO_EXTENSIONS = Extensions({})


@dataclass(frozen=True, slots=True)
class Algorithm:
    """An algorithm by the content of its object identifier, with the DER of its parameters, nothing when it has none."""

    oid: bytes
    parameters: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate; two are equal if their bytes are."""

    der: bytes = field(repr=False)
    tbs: bytes = field(repr=False, compare=False)  # what is signed
    version: int = field(compare=False)
    serial_number: int = field(compare=False)
    algorithm: Algorithm = field(compare=False)  # of the signature
    issuer: Name = field(compare=False)
    not_before: datetime = field(compare=False)
    not_after: datetime = field(compare=False)
    subject: Name = field(compare=False)
    key_info: bytes = field(repr=False, compare=False)  # SubjectPublicKeyInfo
    extensions: Extensions = field(repr=False, compare=False)
    signature: bytes = field(repr=False, compare=False)

    @property
    def is_self_issued(self) -> bool:
        """Whether subject and issuer are the same (RFC 5280, 6.1)."""
        return self.subject == self.issuer

    @property
    def pem(self) -> bytes:
        """The certificate as one PEM block (RFC 7468, 5)."""
        text = encodebytes(self.der).replace(b"\n", b"")
        lines = [text[at : at + 64] for at in range(0, len(text), 64)]
        return b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a TBSCertificate (RFC 5280, 4.1.2)."""

    version: int
    serial: DerValue
    algorithm: DerValue
    issuer: DerValue
    validity: tuple[DerValue, DerValue]
    subject: DerValue
    key_info: DerValue
    extensions: bytes | None


def parse_certificates(blob: bytes) -> tuple[Certificate, ...]:
    """The certificates that stand back to back in `blob`; raises WireError."""
    return tuple(parse_certificate(one) for one in der.split_sequences(blob))


def parse_certificate(encoded: bytes) -> Certificate:
    """One certificate; raises WireError."""
    try:
        return _parse(encoded)
    except WireError as error:
        raise WireError(error.reason, f"not a certificate: {error}") from error


def split_certificate(encoded: bytes) -> tuple[DerValue, Fields, DerValue]:
    """What is signed, its fields, and the signature; raises WireError."""
    outer = der.read_sequence(encoded)
    if len(outer) != 3:
        raise WireError(WireFault.MALFORMED, f"a certificate of {len(outer)} parts, not 3")
    fields = _split(outer[0])
    if parse_algorithm(fields.algorithm).oid != parse_algorithm(outer[1]).oid:
        raise WireError(WireFault.MALFORMED, "two different signature algorithms in one certificate")
    return outer[0], fields, outer[2]


def parse_algorithm(value: DerValue) -> Algorithm:
    """An AlgorithmIdentifier; raises WireError."""
    parts = der.children(value)
    if not 1 <= len(parts) <= 2:
        raise WireError(WireFault.MALFORMED, f"an algorithm of {len(parts)} parts")
    return Algorithm(der.expect(parts[0], der.OID).body, parts[1].whole if len(parts) == 2 else b"")


def _parse(encoded: bytes) -> Certificate:
    tbs, fields, signature = split_certificate(encoded)
    bits, unused = der.as_bits(signature)
    if unused:
        raise WireError(WireFault.MALFORMED, "a signature that is not whole bytes")
    return Certificate(
        encoded,
        tbs.whole,
        fields.version,
        der.as_integer(fields.serial),
        parse_algorithm(fields.algorithm),
        Name(der.expect(fields.issuer, der.SEQUENCE).whole),
        parse_time(fields.validity[0]),
        parse_time(fields.validity[1]),
        Name(der.expect(fields.subject, der.SEQUENCE).whole),
        der.expect(fields.key_info, der.SEQUENCE).whole,
        parse_extensions(fields.extensions) if fields.extensions is not None else _NO_EXTENSIONS,
        bits,
    )


def _split(body: DerValue) -> Fields:
    values = list(der.children(body))
    version = 1
    if values and values[0].tag == _VERSION_TAG:
        version = 1 + der.as_integer(der.read_value(values.pop(0).body, der.INTEGER))
    if len(values) < 6 or not 1 <= version <= 3:
        raise WireError(WireFault.MALFORMED, "a certificate without all of its fields, or of an unknown version")
    serial, algorithm, issuer, validity, subject, key_info = values[:6]
    optional = {value.tag: value.body for value in values[6:]}
    if not optional.keys() <= {*_UNIQUE_ID_TAGS, _EXTENSIONS_TAG} or len(optional) < len(values[6:]):
        raise WireError(WireFault.MALFORMED, "a certificate with more than its fields")
    extensions = optional.get(_EXTENSIONS_TAG) if version == 3 else None
    return Fields(version, serial, algorithm, issuer, _pair(validity), subject, key_info, extensions)


def _pair(validity: DerValue) -> tuple[DerValue, DerValue]:
    times = der.children(validity)
    if len(times) != 2:
        raise WireError(WireFault.MALFORMED, f"a validity of {len(times)} dates, not 2")
    return times[0], times[1]
