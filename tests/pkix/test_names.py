"""Names are printed by RFC 4514, and a malformed attribute does not hide the others."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.support.odd_certificates.raw_der import CN, UTF8, attribute, name, oid, seq, tlv
from tunnel.pkix.names import COMMON_NAME, UNREADABLE, Name

OIDS = [
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.USER_ID,
    NameOID.STREET_ADDRESS,
]
TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=20)
ATTRIBUTES = st.builds(lambda oid, text: x509.NameAttribute(oid, text, _validate=False), st.sampled_from(OIDS), TEXTS)
GROUPS = st.lists(st.lists(ATTRIBUTES, min_size=1, max_size=1), max_size=5)


@given(GROUPS)
def test_a_name_is_shown_as_the_library_shows_it(groups: list[list[x509.NameAttribute]]) -> None:
    made = x509.Name([x509.RelativeDistinguishedName(group) for group in groups])
    assert Name(made.public_bytes()).describe() == made.rfc4514_string()


@given(st.binary(max_size=40))
def test_bytes_that_are_no_name_are_shown_as_unreadable(data: bytes) -> None:
    assert isinstance(Name(data).describe(), str)
    assert Name(data).texts(COMMON_NAME) == () or data


@pytest.mark.parametrize(
    "odd", [b"\x14\x01\xe9", b"\x0c\x01\xff", b"\x1a\x01a", b"\x18\x01x", b"\x03\x02\x00a", b"\x1e\x02\xd8\x00"]
)
def test_a_malformed_attribute_does_not_hide_the_others(odd: bytes) -> None:
    def common_name(value: bytes) -> bytes:
        body = b"\x06\x03\x55\x04\x03" + value
        pair = b"\x30" + bytes([len(body)]) + body
        return b"\x31" + bytes([len(pair)]) + pair

    groups = common_name(odd) + common_name(b"\x0c\x04good")
    name = Name(b"\x30" + bytes([len(groups)]) + groups)
    assert name.texts(COMMON_NAME)[-1] == "good"
    assert name.describe().startswith("CN=good,CN=")


def test_a_printable_string_with_other_ascii_is_a_text() -> None:
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, "db_1@x", x509.name._ASN1Type.PrintableString, _validate=False)
    name = Name(x509.Name([attribute]).public_bytes())
    assert (name.texts(COMMON_NAME), name.describe()) == (("db_1@x",), "CN=db_1@x")


def test_a_long_name_is_not_written_out() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 64)] * 100)
    assert Name(name.public_bytes()).describe() == f"(a name of {len(name.public_bytes())} bytes)"
    assert Name(b"\x30\x80").describe() == UNREADABLE


def test_an_attribute_is_a_kind_and_a_value() -> None:
    assert Name(name(seq(oid("2.5.4.3"), tlv(UTF8, b"a"), tlv(UTF8, b"b")))).describe() == UNREADABLE


@pytest.mark.parametrize(("text", "shown"), [("#a", r"\#a"), (" a", r"\ a"), ("a ", r"a\ "), (" ", r"\ "), ("a\0", r"a\00")])
def test_what_would_be_read_otherwise_is_escaped(text: str, shown: str) -> None:
    """RFC 4514, 2.4."""
    assert Name(name(attribute(CN, UTF8, text.encode()))).describe() == f"CN={shown}"
