"""A reader of DER (X.690): values, and the few universal types that certificates are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tunnel.errors import WireError, WireFault

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTF8, NUMERIC, PRINTABLE, T61, IA5 = 0x0C, 0x12, 0x13, 0x14, 0x16
UTC_TIME, GENERALIZED_TIME, BMP = 0x17, 0x18, 0x1E
SEQUENCE, SET = 0x30, 0x31
_MAX_LENGTH_BYTES = 4  # of a length in its long form
_MAX_OID = 128  # bytes
MAX_VALUES = 2048  # in one: the peer decides how many there are, and each costs a microsecond or two


class DerValue(NamedTuple):
    """One value: its tag with class and form, its content, and all its bytes."""

    tag: int
    body: bytes
    whole: bytes


def read_values(data: bytes) -> Iterator[DerValue]:
    """The values that stand back to back in `data`, which are `MAX_VALUES` at most."""
    start, size = 0, len(data)
    for _ in range(MAX_VALUES):
        if start >= size:
            return
        body = start + 2
        # The usual header is read here, without a call: this loop is where a large certificate costs its time.
        if body > size or data[start + 1] >= 0x80 or data[start] & 0x1F == 0x1F or (end := body + data[start + 1]) > size:
            body, end = _borders(data, start)
        yield DerValue(data[start], data[body:end], data[start:end])
        start = end
    if start < size:
        raise WireError(WireFault.TOO_LARGE, f"more than {MAX_VALUES} DER values in one")


def read_value(data: bytes, tag: int) -> DerValue:
    """The one value that `data` is, which must have this tag."""
    values = tuple(read_values(data))
    if len(values) != 1:
        raise WireError(WireFault.MALFORMED, f"{len(values)} DER values where one is wanted")
    return expect(values[0], tag)


def read_sequence(data: bytes) -> tuple[DerValue, ...]:
    """The values inside the one SEQUENCE that `data` is."""
    return tuple(read_values(read_value(data, SEQUENCE).body))


def split_sequences(blob: bytes) -> tuple[bytes, ...]:
    """Each SEQUENCE of `blob` in order; raises WireError unless the blob is nothing but whole SEQUENCEs."""
    found = []
    start = 0
    while start < len(blob):
        if blob[start] != SEQUENCE:
            raise WireError(WireFault.MALFORMED, f"byte {start} does not begin a DER sequence")
        _body, end = _borders(blob, start)
        found.append(blob[start:end])
        start = end
    return tuple(found)


def children(value: DerValue) -> tuple[DerValue, ...]:
    """The values inside a SEQUENCE."""
    return tuple(read_values(expect(value, SEQUENCE).body))


def expect(value: DerValue, tag: int) -> DerValue:
    """The same value, if it has this tag."""
    if value.tag != tag:
        raise WireError(WireFault.MALFORMED, f"a DER value of type 0x{value.tag:02x} where 0x{tag:02x} is wanted")
    return value


def as_integer(value: DerValue) -> int:
    """An INTEGER of any size."""
    return integer_of(expect(value, INTEGER).body)


def integer_of(body: bytes) -> int:
    """The content of an INTEGER, whatever tag it has."""
    if not body:
        raise WireError(WireFault.MALFORMED, "an INTEGER without content")
    if len(body) > 1 and (body[0], body[1] >> 7) in ((0x00, 0), (0xFF, 1)):
        raise WireError(WireFault.MALFORMED, "an INTEGER with a needless byte")
    return int.from_bytes(body, "big", signed=True)


def as_boolean(value: DerValue) -> bool:
    """A BOOLEAN."""
    if expect(value, BOOLEAN).body not in (b"\x00", b"\xff"):
        raise WireError(WireFault.MALFORMED, "a BOOLEAN that is neither true nor false")
    return value.body == b"\xff"


def as_oid(value: DerValue) -> tuple[int, ...]:
    """The numbers of an OBJECT IDENTIFIER."""
    body = expect(value, OID).body
    if not body or body[-1] & 0x80 or len(body) > _MAX_OID:
        raise WireError(WireFault.MALFORMED, "an OBJECT IDENTIFIER that is cut short or very long")
    numbers, number = [], 0
    for byte in body:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return (first, numbers[0] - 40 * first, *numbers[1:])


def as_bits(value: DerValue) -> tuple[bytes, int]:
    """The bytes of a BIT STRING, and how many bits at their end do not count."""
    body = expect(value, BIT_STRING).body
    if not body or body[0] > 7 or (body[0] and len(body) == 1):
        raise WireError(WireFault.MALFORMED, "a BIT STRING that makes no sense")
    return body[1:], body[0]


def _borders(data: bytes, start: int) -> tuple[int, int]:
    """Where the body of the value at `start` begins and ends."""
    if start + 2 > len(data):
        raise WireError(WireFault.TRUNCATED, "DER ends inside a header")
    if data[start] & 0x1F == 0x1F:
        raise WireError(WireFault.MALFORMED, "a DER tag of more than one byte")
    body, length = start + 2, data[start + 1]
    if length >= 0x80:
        size = length & 0x7F
        if not 1 <= size <= _MAX_LENGTH_BYTES:
            raise WireError(WireFault.MALFORMED, f"byte {start + 1} is no length of DER")
        if body + size > len(data):
            raise WireError(WireFault.TRUNCATED, "DER ends inside a length")
        length = int.from_bytes(data[body : body + size], "big")
        if length < 0x80 or not data[body]:
            raise WireError(WireFault.MALFORMED, f"byte {start + 1} begins a length that is longer than DER allows")
        body += size
    if body + length > len(data):
        raise WireError(WireFault.TRUNCATED, f"DER value at byte {start} is cut short")
    return body, body + length
