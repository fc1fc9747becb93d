"""JSON as protocol buffers carry it: `google.protobuf.Struct`.

Knows its six kinds of values and how deep they may lie in each other; must not know what a claim means. The Workload API
answers with the claims of a JWT-SVID in this form, whose numbers are all double.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from tunnel.errors import WireError, WireFault
from tunnel.spiffe import protobuf

_MAX_DEPTH = 32
_NULL, _NUMBER, _STRING, _BOOL, _STRUCT, _LIST = range(1, 7)  # the fields of google.protobuf.Value
_DOUBLE = struct.Struct("<d")


def parse_struct(data: bytes, depth: int = 0) -> dict[str, Any]:
    """The object that a Struct holds; raises WireError."""
    _check_depth(depth)
    entries = (protobuf.parse_map_entry(entry) for number, entry in protobuf.parse_fields(data) if number == 1)
    return {key: _parse_value(value, depth + 1) for key, value in entries}


def encode_struct(values: Mapping[str, Any]) -> bytes:
    """The Struct that holds an object of JSON."""
    return protobuf.encode_map(1, ((key, _encode_value(value)) for key, value in values.items()))


def _parse_value(data: bytes, depth: int) -> Any:
    _check_depth(depth)
    result: Any = None
    for number, value in protobuf.parse_all_fields(data):
        if number == _NUMBER and isinstance(value, bytes) and len(value) == _DOUBLE.size:
            result = _DOUBLE.unpack(value)[0]
        elif number == _BOOL and isinstance(value, int):
            result = bool(value)
        elif number == _STRING and isinstance(value, bytes):
            result = protobuf.parse_text(value)
        elif number == _STRUCT and isinstance(value, bytes):
            result = parse_struct(value, depth + 1)
        elif number == _LIST and isinstance(value, bytes):
            result = [_parse_value(item, depth + 1) for index, item in protobuf.parse_fields(value) if index == 1]
    return result


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise WireError(WireFault.TOO_LARGE, f"values lie deeper in each other than {_MAX_DEPTH} levels")


def _encode_value(value: Any) -> bytes:
    """A Value; one of several fields is always there, even when it is empty."""
    if value is None:
        return protobuf.encode_varint_field(_NULL, 0)
    if isinstance(value, bool):
        return protobuf.encode_varint_field(_BOOL, int(value))
    if isinstance(value, int | float):
        return protobuf.encode_fixed64(_NUMBER, _DOUBLE.pack(value))
    if isinstance(value, str):
        return protobuf.encode_message(_STRING, value.encode())
    if isinstance(value, Mapping):
        return protobuf.encode_message(_STRUCT, encode_struct(value))
    assert isinstance(value, Sequence), "JSON has no other values"
    return protobuf.encode_message(_LIST, b"".join(protobuf.encode_message(1, _encode_value(item)) for item in value))
