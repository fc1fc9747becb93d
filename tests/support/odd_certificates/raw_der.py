"""DER written by hand, so that a certificate can hold anything at all."""

from __future__ import annotations

from datetime import datetime

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, SEQUENCE, SET = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x30, 0x31
UTF8, NUMERIC, PRINTABLE, T61, IA5, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x12, 0x13, 0x14, 0x16, 0x17, 0x18
VISIBLE, GENERAL, UNIVERSAL, BMP = 0x1A, 0x1B, 0x1C, 0x1E
CN, OU, COUNTRY = "2.5.4.3", "2.5.4.11", "2.5.4.6"


def tlv(tag: int, *parts: bytes) -> bytes:
    """One element: its tag, its shortest length, its parts."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def element_size(element: bytes) -> int:
    """The size of the first element by its own length."""
    if element[1] < 0x80:
        return 2 + element[1]
    count = element[1] & 0x7F
    return 2 + count + int.from_bytes(element[2 : 2 + count], "big")


def long_form(element: bytes) -> bytes:
    """The same short element with one byte of length more than DER permits."""
    assert element[1] < 0x80
    return bytes([element[0], 0x81]) + element[1:]


def seq(*parts: bytes) -> bytes:
    return tlv(SEQUENCE, *parts)


def boolean(value: bool) -> bytes:
    return tlv(BOOLEAN, b"\xff" if value else b"\0")


def integer(value: int) -> bytes:
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def bits(content: bytes, unused: int = 0) -> bytes:
    return tlv(BIT_STRING, bytes([unused]), content)


def octets(content: bytes) -> bytes:
    return tlv(OCTET_STRING, content)


def oid(dotted: str) -> bytes:
    """An object identifier."""
    first, second, *rest = map(int, dotted.split("."))
    return tlv(OID, b"".join(map(_base128, (40 * first + second, *rest))))


def _base128(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | (value & 0x7F))
    return bytes(reversed(groups))


def context(number: int, *parts: bytes) -> bytes:
    """A constructed element [number]."""
    return tlv(0xA0 | number, *parts)


def implicit(number: int, content: bytes) -> bytes:
    """A primitive element [number]."""
    return tlv(0x80 | number, content)


def attribute(kind: str, tag: int, value: bytes) -> bytes:
    """One attribute of a name, as a string of any type."""
    return seq(oid(kind), tlv(tag, value))


def name(*rdns: bytes) -> bytes:
    """A distinguished name of attributes with an RDN each."""
    return seq(*(tlv(SET, rdn) for rdn in rdns))


def common_name(text: str, tag: int = UTF8) -> bytes:
    """A name that has a common name only, or nothing."""
    return name(attribute(CN, tag, text.encode())) if text else name()


def time(at: datetime) -> bytes:
    """UTCTime until 2049, GeneralizedTime from 2050 (RFC 5280, 4.1.2.5)."""
    text = f"{at:%Y%m%d%H%M%S}Z".zfill(15)
    return utc_time(text[2:]) if 1950 <= at.year < 2050 else generalized(text)


def utc_time(text: str) -> bytes:
    return tlv(UTC_TIME, text.encode())


def generalized(text: str) -> bytes:
    return tlv(GENERALIZED_TIME, text.encode())


def extension(kind: str, value: bytes, critical: bool | None = None) -> bytes:
    """One extension; `critical` None leaves the default out, False writes it, which DER forbids."""
    return seq(oid(kind), b"" if critical is None else boolean(critical), octets(value))
