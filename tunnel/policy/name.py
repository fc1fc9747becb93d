"""A distinguished name as Go's pkix.Name.

Knows the attributes that have a field of their own and the string types that Go reads; must not know certificates.
"""

from __future__ import annotations

from tunnel.pkix import der
from tunnel.pkix.der import DerValue
from tunnel.pkix.names import Name

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


def encode_name(name: DerValue) -> dict[str, object]:
    """The fields by their names; of a single-valued attribute that comes twice, the last one counts."""
    groups = Name(der.expect(name, der.SEQUENCE).whole).groups()
    attributes = [(attribute.oid, attribute.text()) for group in groups for attribute in group]
    fields: dict[str, object] = {}
    for number, field in _LISTS.items():
        fields[field] = [text for oid, text in attributes if oid == (*_X520, number)] or None
    for number, field in _TEXTS.items():
        fields[field] = ([text for oid, text in attributes if oid == (*_X520, number)] or [""])[-1]
    names = [{"Type": oid, "Value": text} for oid, text in attributes]
    return fields | {"Names": names or None, "ExtraNames": None}
