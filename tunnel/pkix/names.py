"""Distinguished names, read attribute by attribute: a malformed one does not hide the others (RFC 5280, 4.1.2.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tunnel.errors import WireError, WireFault
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
_MOST_SHOWN = 4096  # bytes in DER; a longer name takes long to write, and the peer decides how long it is
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
        """Its value as Go reads it; raises WireError for a kind of string, or characters, that Go does not read."""
        return _decode(self.value)


@dataclass(frozen=True, slots=True)
class Name:
    """A name as it stands in a certificate. Two names are equal if their bytes are, as in Go."""

    der: bytes

    def groups(self) -> Iterator[tuple[Attribute, ...]]:
        """Its relative distinguished names in order; raises WireError."""
        for group in der.read_sequence(self.der):
            yield tuple(map(_parse_attribute, der.read_values(der.expect(group, der.SET).body)))

    def texts(self, oid: Oid) -> tuple[str, ...]:
        """The values of one kind of attribute that can be read."""
        try:
            found = [attribute for group in self.groups() for attribute in group if attribute.oid == oid]
        except WireError:
            return ()
        return tuple(text for attribute in found if (text := _text_or_none(attribute)) is not None)

    def describe(self, short_names: Mapping[Oid, str] = _NO_NAMES) -> str:
        """The name by RFC 4514, for a message; `short_names` are for attributes that have none by themselves."""
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
        raise WireError(WireFault.MALFORMED, f"an attribute of a name with {len(parts)} parts, not 2")
    return Attribute(der.as_oid(parts[0]), parts[1])


def _text_or_none(attribute: Attribute) -> str | None:
    """The text of an attribute. Go refuses `@` or `_` in a PrintableString, which authorities in use write."""
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
            return value.body.decode("latin-1")  # as everyone reads it
        if value.tag == der.BMP:
            return _decode_bmp(value.body)
    except UnicodeDecodeError as error:
        raise WireError(WireFault.NOT_TEXT, "a name that is not of the characters that it should be") from error
    raise WireError(WireFault.NOT_TEXT, f"a name of type 0x{value.tag:02x} that cannot be read")


def _decode_bmp(body: bytes) -> str:
    """UCS-2: sixteen bits each, no surrogates; an end mark is left out."""
    if len(body) % 2:
        raise WireError(WireFault.NOT_TEXT, "a BMPString that ends inside a character")
    text = body.removesuffix(b"\0\0").decode("utf-16-be", "surrogatepass")
    if _RESERVED.search(text) or any(ord(sign) > 0xFFFF for sign in text):
        raise WireError(WireFault.NOT_TEXT, "a BMPString with reserved characters")
    return text
