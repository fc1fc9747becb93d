"""A distinguished name as Go's pkix.Name.

Knows the attributes that have a field of their own and the string types that Go reads; must not know certificates.
"""

from __future__ import annotations

import re

from tunnel.errors import WireError, WireFault
from tunnel.policy import der
from tunnel.policy.der import Value

_LISTS = {
    6: "Country",
    10: "Organization",
    11: "OrganizationalUnit",
    7: "Locality",
    8: "Province",
    9: "StreetAddress",
    17: "PostalCode",
}
_TEXTS = {5: "SerialNumber", 3: "CommonName"}
_X520 = (2, 5, 4)
_NARROW = {
    der.PRINTABLE: re.compile(rb"[A-Za-z0-9'()+,\-./ :=?*&]*"),
    der.NUMERIC: re.compile(rb"[0-9 ]*"),
    der.IA5: re.compile(rb"[\x00-\x7f]*"),
}
_RESERVED = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def encode_name(name: Value) -> dict[str, object]:
    """The fields by their names; of a single-valued attribute that comes twice, the last one counts."""
    attributes = [
        _attribute(attribute)
        for group in der.read_values(der.expect(name, der.SEQUENCE).body)
        for attribute in der.read_values(der.expect(group, der.SET).body)
    ]
    fields: dict[str, object] = {}
    for number, field in _LISTS.items():
        fields[field] = [text for oid, text in attributes if oid == (*_X520, number)] or None
    for number, field in _TEXTS.items():
        fields[field] = ([text for oid, text in attributes if oid == (*_X520, number)] or [""])[-1]
    names = [{"Type": oid, "Value": text} for oid, text in attributes]
    return fields | {"Names": names or None, "ExtraNames": None}


def _attribute(attribute: Value) -> tuple[tuple[int, ...], str]:
    values = tuple(der.read_values(der.expect(attribute, der.SEQUENCE).body))
    if len(values) != 2:
        raise WireError(WireFault.MALFORMED, f"an attribute of a name with {len(values)} parts, not 2")
    return der.as_oid(values[0]), _text(values[1])


def _text(value: Value) -> str:
    narrow = _NARROW.get(value.tag)
    if narrow is not None and narrow.fullmatch(value.body):
        return value.body.decode("ascii")
    try:
        if value.tag == der.UTF8:
            return value.body.decode("utf-8")
        if value.tag == der.T61:
            return value.body.decode("latin-1")  # as everyone reads it
        if value.tag == der.BMP:
            return _bmp(value.body)
    except UnicodeDecodeError as error:
        raise WireError(WireFault.NOT_TEXT, "a name that is not of the characters that it should be") from error
    raise WireError(WireFault.NOT_TEXT, f"a name of type 0x{value.tag:02x} that cannot be read")


def _bmp(body: bytes) -> str:
    """UCS-2: sixteen bits each, no surrogates; an end mark is left out."""
    if len(body) % 2:
        raise WireError(WireFault.NOT_TEXT, "a BMPString that ends inside a character")
    text = body.removesuffix(b"\0\0").decode("utf-16-be", "surrogatepass")
    if _RESERVED.search(text) or any(ord(sign) > 0xFFFF for sign in text):
        raise WireError(WireFault.NOT_TEXT, "a BMPString with reserved characters")
    return text
