"""A DER parser (X.690): values, and the universal types that certificates contain. Every function raises WireError."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tunnel.errors import WireError, WireFault

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTF8, NUMERIC, PRINTABLE, T61, IA5 = 0x0C, 0x12, 0x13, 0x14, 0x16
ENUMERATED, UTC_TIME, GENERALIZED_TIME, BMP = 0x0A, 0x17, 0x18, 0x1E
SEQUENCE, SET = 0x30, 0x31
_MAX_LENGTH_BYTES = 4  # of a length in its long form
_MAX_OID = 128  # bytes
MAX_VALUES = 2048  # in one value: peers decide the number, and each costs one to two microseconds


class DerValue(NamedTuple):
    """One value: the tag with class and form, the content, and the whole encoding."""

    tag: int
    body: bytes
    whole: bytes


def read_values(data: bytes) -> Iterator[DerValue]:
    """Yield the values that follow each other in `data`, at most `MAX_VALUES`."""
    start, size = 0, len(data)
    for _ in range(MAX_VALUES):
        if start >= size:
            return
        body = start + 2
        # A short header is parsed here without a function call: a large certificate spends its time in this loop.
        if body > size or data[start + 1] >= 0x80 or data[start] & 0x1F == 0x1F or (end := body + data[start + 1]) > size:
            body, end = _borders(data, start)
        yield DerValue(data[start], data[body:end], data[start:end])
        start = end
    if start < size:
        raise WireError(WireFault.TOO_LARGE, f"more than {MAX_VALUES} DER values in one")


def read_value(data: bytes, tag: int) -> DerValue:
    """Return the only value in `data`, which must have this tag."""
    values = tuple(read_values(data))
    if len(values) != 1:
        raise WireError(WireFault.MALFORMED, f"{len(values)} DER values; expected 1")
    return expect(values[0], tag)


def read_first(data: bytes, start: int) -> DerValue:
    """Return the value at `start`, whatever follows it."""
    body, end = _borders(data, start)
    return DerValue(data[start], data[body:end], data[start:end])


def read_sequence(data: bytes) -> tuple[DerValue, ...]:
    """Return the values inside the SEQUENCE that is the only value in `data`."""
    return tuple(read_values(read_value(data, SEQUENCE).body))


def split_sequences(blob: bytes) -> tuple[bytes, ...]:
    """Return each SEQUENCE of `blob`, which must consist of complete SEQUENCEs only."""
    found = []
    start = 0
    while start < len(blob):
        if blob[start] != SEQUENCE:
            raise WireError(WireFault.MALFORMED, f"byte {start} is not the start of a DER SEQUENCE")
        _body, end = _borders(blob, start)
        found.append(blob[start:end])
        start = end
    return tuple(found)


def children(value: DerValue) -> tuple[DerValue, ...]:
    """Return the values inside a SEQUENCE."""
    return tuple(read_values(expect(value, SEQUENCE).body))


def expect(value: DerValue, tag: int) -> DerValue:
    """Return the same value if it has this tag."""
    if value.tag != tag:
        raise WireError(WireFault.MALFORMED, f"a DER value of type 0x{value.tag:02x}; expected 0x{tag:02x}")
    return value


def as_integer(value: DerValue) -> int:
    """Return an INTEGER of any size."""
    return integer_of(expect(value, INTEGER).body)


def integer_of(body: bytes) -> int:
    """Return the number in the content of an INTEGER, for values with an implicit tag."""
    if not body:
        raise WireError(WireFault.MALFORMED, "an INTEGER without content")
    if len(body) > 1 and (body[0], body[1] >> 7) in ((0x00, 0), (0xFF, 1)):
        raise WireError(WireFault.MALFORMED, "an INTEGER with a redundant leading byte")
    return int.from_bytes(body, "big", signed=True)


def as_boolean(value: DerValue) -> bool:
    """Return a BOOLEAN."""
    if expect(value, BOOLEAN).body not in (b"\x00", b"\xff"):
        raise WireError(WireFault.MALFORMED, "a BOOLEAN that is neither 0x00 nor 0xff")
    return value.body == b"\xff"


def as_oid(value: DerValue) -> tuple[int, ...]:
    """Return the numbers of an OBJECT IDENTIFIER."""
    return oid_of(expect(value, OID).body)


def oid_of(body: bytes) -> tuple[int, ...]:
    """Return the numbers of an OBJECT IDENTIFIER with this content."""
    if not body or body[-1] & 0x80 or len(body) > _MAX_OID:
        raise WireError(WireFault.MALFORMED, "an OBJECT IDENTIFIER that is truncated or too long")
    numbers, number = [], 0
    for byte in body:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return (first, numbers[0] - 40 * first, *numbers[1:])


def as_bits(value: DerValue) -> tuple[bytes, int]:
    """Return the bytes of a BIT STRING and the number of unused bits at the end."""
    body = expect(value, BIT_STRING).body
    if not body or body[0] > 7 or (body[0] and len(body) == 1):
        raise WireError(WireFault.MALFORMED, "an invalid BIT STRING")
    return body[1:], body[0]


def _borders(data: bytes, start: int) -> tuple[int, int]:
    """Return the start and the end of the content of the value at `start`."""
    if start + 2 > len(data):
        raise WireError(WireFault.TRUNCATED, "DER ends inside a header")
    if data[start] & 0x1F == 0x1F:
        raise WireError(WireFault.MALFORMED, "a DER tag of more than one byte")
    body, length = start + 2, data[start + 1]
    if length >= 0x80:
        size = length & 0x7F
        if not 1 <= size <= _MAX_LENGTH_BYTES:
            raise WireError(WireFault.MALFORMED, f"invalid DER length at byte {start + 1}")
        if body + size > len(data):
            raise WireError(WireFault.TRUNCATED, "DER ends inside a length")
        length = int.from_bytes(data[body : body + size], "big")
        if length < 0x80 or not data[body]:
            raise WireError(WireFault.MALFORMED, f"non-minimal DER length at byte {start + 1}")
        body += size
    if body + length > len(data):
        raise WireError(WireFault.TRUNCATED, f"DER value at byte {start} is truncated")
    return body, body + length
