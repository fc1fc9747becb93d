"""`google.protobuf.Struct`, compared with the protobuf runtime."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnel.errors import WireError
from tunnel.spiffe.claims import encode_struct, parse_struct
from tunnel.spiffe.protobuf import encode_message

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def theirs(values: dict[str, Any]) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(values)
    return made


@settings(max_examples=40)
@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_struct_parser_and_encoder_agree_with_the_protobuf_runtime(values: dict[str, Any]) -> None:
    assert parse_struct(theirs(values).SerializeToString()) == values
    read = struct_pb2.Struct()
    read.ParseFromString(encode_struct(values))
    assert json_format.MessageToDict(read) == json_format.MessageToDict(theirs(values))


@given(st.binary(max_size=80))
def test_noise_is_read_or_refused(data: bytes) -> None:
    with suppress(WireError):
        parse_struct(data)


def test_depth_is_bounded() -> None:
    data = b""
    for _ in range(200):
        data = encode_message(1, encode_message(1, b"a") + encode_message(2, encode_message(5, data)))
    with pytest.raises(WireError, match="deeper"):
        parse_struct(data)
