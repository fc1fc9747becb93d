"""The protobuf wire format: unknown fields are skipped, and bad bytes raise only WireError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import WireError, WireFault
from tunnel.spiffe.protobuf import (
    encode_field,
    encode_map,
    encode_message,
    parse_all_fields,
    parse_fields,
    parse_map_entry,
    parse_text,
)

WANTED = b"\x0a\x01x"  # field 1: "x"

# Field 9 of each wire type, which nobody asked for.
UNKNOWN = {
    "varint": "48" + "01",
    "varint of ten bytes": "48" + "ffffffffffffffffff01",
    "varint with needless bytes": "48" + "808000",
    "fixed64": "49" + "0102030405060708",
    "bytes": "4a" + "03" + "010203",
    "empty bytes": "4a" + "00",
    "empty group": "4b" + "4c",
    "group with every type": "4b" + "0801" + "110102030405060708" + "1a0101" + "2501020304" + "4c",
    "group in a group": "4b" + "5b" + "0801" + "5c" + "4c",
    "group in a group of the same number": "4b" + "4b" + "4c" + "4c",
    "sixteen groups": "4b" * 16 + "4c" * 16,
    "fixed32": "4d" + "01020304",
    "largest field number": "f8ffffff0f" + "00",
}

BAD = {
    "field number 0": ("00" + "00", WireFault.MALFORMED),
    "field number 0 with bytes": ("02" + "00", WireFault.MALFORMED),
    "field number over 2^29-1": ("8080808010" + "00", WireFault.MALFORMED),
    "wire type 6": ("4e", WireFault.MALFORMED),
    "wire type 7": ("4f", WireFault.MALFORMED),
    "end of a group that never began": ("4c", WireFault.MALFORMED),
    "end of another group": ("4b" + "54", WireFault.MALFORMED),
    "seventeen groups": ("4b" * 17 + "4c" * 17, WireFault.MALFORMED),
    "varint of eleven bytes": ("48" + "ff" * 10 + "01", WireFault.MALFORMED),
    "tag of eleven bytes": ("ff" * 10 + "01", WireFault.MALFORMED),
    "tag cut": ("ca", WireFault.TRUNCATED),
    "varint cut": ("48" + "ff", WireFault.TRUNCATED),
    "varint missing": ("48", WireFault.TRUNCATED),
    "fixed64 cut": ("49" + "01020304050607", WireFault.TRUNCATED),
    "fixed32 cut": ("4d" + "010203", WireFault.TRUNCATED),
    "bytes cut": ("4a" + "03" + "0102", WireFault.TRUNCATED),
    "length missing": ("4a", WireFault.TRUNCATED),
    "length of 2^63": ("4a" + "80808080808080808001", WireFault.TRUNCATED),
    "group without end": ("4b" + "0801", WireFault.TRUNCATED),
    "group cut inside a field": ("4b" + "08", WireFault.TRUNCATED),
}


@pytest.mark.parametrize("unknown", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("place", ["before", "after", "both"])
def test_unknown_fields_are_skipped(unknown: str, place: str) -> None:
    skipped = bytes.fromhex(unknown)
    before, after = skipped * (place != "after"), skipped * (place != "before")
    for parse in (parse_fields, parse_all_fields):
        assert [field for field in parse(before + WANTED + after) if field[0] == 1] == [(1, b"x")]


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("before", [b"", WANTED], ids=["alone", "after a good field"])
def test_bad_bytes_are_refused_with_their_reason(data: str, reason: WireFault, before: bytes) -> None:
    with pytest.raises(WireError) as refused:
        list(parse_fields(before + bytes.fromhex(data)))
    assert refused.value.reason is reason


def test_fields_come_in_the_order_of_the_bytes() -> None:
    data = encode_message(3, b"c") + encode_message(1, b"a") + encode_message(3, b"d")
    assert list(parse_fields(data)) == [(3, b"c"), (1, b"a"), (3, b"d")]


def test_thousands_of_groups_side_by_side_are_skipped() -> None:
    assert list(parse_fields(bytes.fromhex("4b4c") * 5000 + WANTED)) == [(1, b"x")]


@pytest.mark.parametrize("value", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"a\xc3"])
def test_a_string_that_is_not_utf8_is_refused(value: bytes) -> None:
    with pytest.raises(WireError) as refused:
        parse_text(value)
    assert refused.value.reason is WireFault.NOT_TEXT


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (b"", ("", b"")),
        (b"\x0a\x01k", ("k", b"")),
        (b"\x12\x01v", ("", b"v")),
        (b"\x12\x01v\x0a\x01k", ("k", b"v")),
        (b"\x0a\x01k\x12\x01v\x12\x01w\x0a\x01l", ("l", b"w")),
        (b"\x0a\x01k\x12\x01v\x12\x00", ("k", b"")),
        (b"\x0a\x01k\x1a\x01z\x12\x01v", ("k", b"v")),
    ],
)
def test_a_map_entry_has_defaults_any_order_and_the_last_wins(entry: bytes, expected: tuple[str, bytes]) -> None:
    assert parse_map_entry(entry) == expected


def test_an_empty_value_is_left_out_but_an_empty_message_is_not() -> None:
    assert encode_field(1, "") == b""
    assert encode_field(1, b"") == b""
    assert encode_message(1, b"") == b"\x0a\x00"


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 70000])
@pytest.mark.parametrize("number", [1, 15, 16, 2047, 2048])
def test_what_is_encoded_is_parsed_back(size: int, number: int) -> None:
    assert list(parse_fields(encode_message(number, bytes(size)))) == [(number, bytes(size))]


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=4))
def test_a_map_is_parsed_back(entries: dict[str, bytes]) -> None:
    parsed = [parse_map_entry(value) for number, value in parse_fields(encode_map(7, entries.items())) if number == 7]
    assert dict(parsed) == entries


@given(st.binary(max_size=60))
def test_noise_is_parsed_or_refused_with_a_wire_error(data: bytes) -> None:
    try:
        for number, value in parse_fields(data):
            assert 1 <= number < 2**29
            assert value in data
    except WireError:
        pass
