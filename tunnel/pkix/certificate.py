"""A parsed certificate (RFC 5280, 4.1).

Only the fields that every rule needs are parsed at once: a name, a key or an extension is parsed when a rule reads it.
"""

from __future__ import annotations

from base64 import encodebytes
from datetime import datetime

from tunnel.errors import WireError, WireFault
from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix import der
from tunnel.pkix.algorithms import Algorithm, parse_algorithm
from tunnel.pkix.dates import parse_time
from tunnel.pkix.der import DerValue
from tunnel.pkix.extensions import Extensions, parse_extensions
from tunnel.pkix.names import Name

_VERSION_TAG, _EXTENSIONS_TAG = 0xA0, 0xA3
_UNIQUE_ID_TAGS = (0x81, 0x82)
_MANDATORY = 6  # fields after the version
_NO_EXTENSIONS = Extensions({})


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate; two are equal if their DER is."""

    der: bytes = field(repr=False)
    tbs: bytes = field(repr=False, compare=False)  # TBSCertificate, which is signed
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
        """Whether subject and issuer are the same name (RFC 5280, 6.1)."""
        return self.subject == self.issuer

    @property
    def pem(self) -> bytes:
        """The certificate as one PEM block (RFC 7468, 5)."""
        text = encodebytes(self.der).replace(b"\n", b"")
        lines = [text[at : at + 64] for at in range(0, len(text), 64)]
        return b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])


def parse_certificates(blob: bytes) -> tuple[Certificate, ...]:
    """Parse certificates that follow each other without a separator; raises WireError."""
    return tuple(parse_certificate(one) for one in der.split_sequences(blob))


def parse_certificate(encoded: bytes) -> Certificate:
    """Parse one certificate; raises WireError."""
    try:
        return _parse(encoded)
    except WireError as error:
        raise WireError(error.reason, f"not a certificate: {error}") from error


def read_serial_number(encoded: bytes) -> int:
    """Return the serial number of a certificate that was parsed before; a twentieth of the cost of `parse_certificate`."""
    body = der.read_first(encoded, 0).body
    values = der.read_values(der.read_first(body, 0).body)
    first = next(values)
    return der.as_integer(next(values) if first.tag == _VERSION_TAG else first)


def _parse(encoded: bytes) -> Certificate:
    outer = der.read_sequence(encoded)
    if len(outer) != 3:
        raise WireError(WireFault.MALFORMED, f"a certificate of {len(outer)} parts; expected 3")
    version, fields, extensions = _split(outer[0])
    serial, algorithm_value, issuer, validity, subject, key_info = fields
    algorithm = parse_algorithm(algorithm_value)
    if algorithm.oid != parse_algorithm(outer[1]).oid:
        raise WireError(WireFault.MALFORMED, "two different signature algorithms in one certificate")
    signature, unused = der.as_bits(outer[2])
    if unused:
        raise WireError(WireFault.MALFORMED, "a signature that is not whole bytes")
    not_before, not_after = _parse_validity(validity)
    return Certificate(
        encoded,
        outer[0].whole,
        version,
        der.as_integer(serial),
        algorithm,
        Name(der.expect(issuer, der.SEQUENCE).whole),
        not_before,
        not_after,
        Name(der.expect(subject, der.SEQUENCE).whole),
        der.expect(key_info, der.SEQUENCE).whole,
        parse_extensions(extensions) if extensions is not None else _NO_EXTENSIONS,
        signature,
    )


def _split(body: DerValue) -> tuple[int, list[DerValue], bytes | None]:
    """Return the version, the six mandatory fields after it, and the extensions of a TBSCertificate (RFC 5280, 4.1.2)."""
    values = list(der.children(body))
    version = 1
    if values and values[0].tag == _VERSION_TAG:
        version = 1 + der.as_integer(der.read_value(values.pop(0).body, der.INTEGER))
    if len(values) < _MANDATORY or not 1 <= version <= 3:
        raise WireError(WireFault.MALFORMED, "a certificate with a missing field or an unknown version")
    optional = {value.tag: value.body for value in values[_MANDATORY:]}
    if not optional.keys() <= {*_UNIQUE_ID_TAGS, _EXTENSIONS_TAG} or len(optional) < len(values) - _MANDATORY:
        raise WireError(WireFault.MALFORMED, "a certificate with an unknown field")
    return version, values[:_MANDATORY], optional.get(_EXTENSIONS_TAG) if version == 3 else None


def _parse_validity(value: DerValue) -> tuple[datetime, datetime]:
    times = der.children(value)
    if len(times) != 2:
        raise WireError(WireFault.MALFORMED, f"a validity of {len(times)} dates; expected 2")
    return parse_time(times[0]), parse_time(times[1])
