"""JSON in protocol buffers: `google.protobuf.Struct`, the form of claims in the Workload API. All numbers are doubles."""

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
    """Parse a Struct to a JSON object; raises WireError."""
    _check_depth(depth)
    entries = (protobuf.parse_map_entry(entry) for number, entry in protobuf.parse_fields(data) if number == 1)
    return {key: _parse_value(value, depth + 1) for key, value in entries}


def encode_struct(values: Mapping[str, Any]) -> bytes:
    """Encode a JSON object as a Struct."""
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
        raise WireError(WireFault.TOO_LARGE, f"values are nested deeper than {_MAX_DEPTH} levels")


def _encode_value(value: Any) -> bytes:
    """Encode a Value; its field is present even if it is empty."""
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
