"""Distinguished names (RFC 5280, 4.1.2.4). A malformed attribute does not prevent reading the others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tunnel.errors import WireError, WireFault
from tunnel.lazy_dataclass import dataclass
from tunnel.pkix import der
from tunnel.pkix.der import DerValue

Oid = tuple[int, ...]

COMMON_NAME: Oid = (2, 5, 4, 3)
SERIAL_NUMBER: Oid = (2, 5, 4, 5)
ORGANIZATIONAL_UNIT: Oid = (2, 5, 4, 11)
_SHORT_NAMES: Mapping[Oid, str] = {
    COMMON_NAME: "CN",
    (2, 5, 4, 7): "L",
    (2, 5, 4, 8): "ST",
    (2, 5, 4, 10): "O",
    ORGANIZATIONAL_UNIT: "OU",
    (2, 5, 4, 6): "C",
    (2, 5, 4, 9): "STREET",
    (0, 9, 2342, 19200300, 100, 1, 25): "DC",
    (0, 9, 2342, 19200300, 100, 1, 1): "UID",
}
_NO_NAMES: Mapping[Oid, str] = {}
UNREADABLE = "(unreadable)"
_MOST_SHOWN = 4096  # bytes in DER; peers decide the length of a name, and a long one is slow to print
_NARROW = {
    der.PRINTABLE: re.compile(rb"[A-Za-z0-9'()+,\-./ :=?*&]*"),
    der.NUMERIC: re.compile(rb"[0-9 ]*"),
    der.IA5: re.compile(rb"[\x00-\x7f]*"),
}
_RESERVED = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_ESCAPED = re.compile(r'["+,;<>\\]')


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a name."""

    oid: Oid
    value: DerValue

    def text(self) -> str:
        """Return the value as Go decodes it; raises WireError for string types and characters that Go rejects."""
        return _decode(self.value)


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a certificate; two are equal if their DER is, as in Go."""

    der: bytes

    def groups(self) -> Iterator[tuple[Attribute, ...]]:
        """Yield the relative distinguished names in order; raises WireError."""
        for group in der.read_sequence(self.der):
            yield tuple(map(_parse_attribute, der.read_values(der.expect(group, der.SET).body)))

    def texts(self, oid: Oid) -> tuple[str, ...]:
        """Return the readable values of one attribute type."""
        try:
            found = [attribute for group in self.groups() for attribute in group if attribute.oid == oid]
        except WireError:
            return ()
        return tuple(text for attribute in found if (text := _text_or_none(attribute)) is not None)

    def describe(self, short_names: Mapping[Oid, str] = _NO_NAMES) -> str:
        """Return the name in the notation of RFC 4514, for a message; `short_names` adds attribute types."""
        if len(self.der) > _MOST_SHOWN:
            return f"(a name of {len(self.der)} bytes)"
        known = {**_SHORT_NAMES, **short_names}
        try:
            groups = ["+".join(_describe(attribute, known) for attribute in group) for group in self.groups()]
        except WireError:
            return UNREADABLE
        return ",".join(reversed(groups))


def _parse_attribute(value: DerValue) -> Attribute:
    parts = der.children(value)
    if len(parts) != 2:
        raise WireError(WireFault.MALFORMED, f"an attribute of {len(parts)} parts in a name; expected 2")
    return Attribute(der.as_oid(parts[0]), parts[1])


def _text_or_none(attribute: Attribute) -> str | None:
    """Return the text of an attribute. Go rejects `@` and `_` in a PrintableString, which some authorities use."""
    try:
        return attribute.text()
    except WireError:
        value = attribute.value
        return value.body.decode("ascii") if value.tag in (der.PRINTABLE, der.NUMERIC) and value.body.isascii() else None


def _describe(attribute: Attribute, known: Mapping[Oid, str]) -> str:
    text = _text_or_none(attribute)
    shown = f"#{attribute.value.whole.hex()}" if text is None else _escape(text)  # RFC 4514, 2.4
    return f"{known.get(attribute.oid) or '.'.join(map(str, attribute.oid))}={shown}"


def _escape(text: str) -> str:
    escaped = _ESCAPED.sub(r"\\\g<0>", text).replace("\0", r"\00")
    if escaped.startswith("#") or (escaped.startswith(" ") and len(escaped) > 1):
        escaped = f"\\{escaped}"
    return f"{escaped[:-1]}\\ " if escaped.endswith(" ") else escaped


def _decode(value: DerValue) -> str:
    narrow = _NARROW.get(value.tag)
    if narrow is not None and narrow.fullmatch(value.body):
        return value.body.decode("ascii")
    try:
        if value.tag == der.UTF8:
            return value.body.decode("utf-8")
        if value.tag == der.T61:
            return value.body.decode("latin-1")  # as all implementations decode it
        if value.tag == der.BMP:
            return _decode_bmp(value.body)
    except UnicodeDecodeError as error:
        raise WireError(WireFault.NOT_TEXT, "a string in a name that is not in its character set") from error
    raise WireError(WireFault.NOT_TEXT, f"a string in a name of unknown type 0x{value.tag:02x}")


def _decode_bmp(body: bytes) -> str:
    """Decode UCS-2: 16 bits per character, no surrogates; a trailing NUL is removed."""
    if len(body) % 2:
        raise WireError(WireFault.NOT_TEXT, "a BMPString of an odd length")
    text = body.removesuffix(b"\0\0").decode("utf-16-be", "surrogatepass")
    if _RESERVED.search(text) or any(ord(sign) > 0xFFFF for sign in text):
        raise WireError(WireFault.NOT_TEXT, "a BMPString with reserved characters")
    return text
