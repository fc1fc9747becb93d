"""The part of the protocol buffers wire format that the Workload API needs.

Not generated: the proto of the Workload API has no package, so generated code would conflict with other SPIFFE libraries in the
same process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tunnel.errors import WireError, WireFault

_VARINT, _FIXED64, _BYTES, _GROUP_START, _GROUP_END, _FIXED32 = range(6)
_MAX_VARINT_BYTES = 10
_MAX_GROUP_DEPTH = 16


def parse_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and value of each length-delimited field; other fields are validated and skipped. Raises WireError."""
    at = 0
    while at < len(data):
        number, kind, at = _parse_tag(data, at)
        if kind == _BYTES:
            value, at = _parse_bytes(data, at)
            yield number, value
        else:
            at = _skip(data, at, number, kind, depth=0)


def parse_all_fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield number and value of each field except groups: varints as numbers, all others as bytes. Raises WireError."""
    at = 0
    while at < len(data):
        number, kind, at = _parse_tag(data, at)
        if kind == _BYTES:
            value, at = _parse_bytes(data, at)
            yield number, value
        elif kind == _VARINT:
            amount, at = _parse_varint(data, at)
            yield number, amount
        else:
            start, at = at, _skip(data, at, number, kind, depth=0)
            if kind != _GROUP_START:
                yield number, data[start:at]


def parse_text(value: bytes) -> str:
    """Parse a string field, which must be UTF-8 in proto3; raises WireError."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError(WireFault.NOT_TEXT, "string field is not UTF-8") from error


def parse_map_entry(data: bytes) -> tuple[str, bytes]:
    """Parse an entry of a map<string, bytes>; a missing key or value is empty. Raises WireError."""
    key, value = "", b""
    for number, content in parse_fields(data):
        if number == 1:
            key = parse_text(content)
        elif number == 2:
            value = content
    return key, value


def encode_field(number: int, value: bytes | str) -> bytes:
    """Encode a length-delimited field, or nothing for an empty value, as in proto3."""
    content = value.encode() if isinstance(value, str) else value
    return encode_message(number, content) if content else b""


def encode_message(number: int, content: bytes) -> bytes:
    """Encode an embedded message or an item of a repeated field: present even if empty."""
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(content)) + content


def encode_varint_field(number: int, value: int) -> bytes:
    """Encode a number or a boolean, present even if it is zero."""
    return _encode_varint(number << 3 | _VARINT) + _encode_varint(value)


def encode_fixed64(number: int, value: bytes) -> bytes:
    """Encode a field of eight bytes, such as a double."""
    assert len(value) == 8
    return _encode_varint(number << 3 | _FIXED64) + value


def encode_map(number: int, entries: Iterable[tuple[str, bytes]]) -> bytes:
    """Encode a map<string, bytes>."""
    return b"".join(encode_message(number, encode_field(1, key) + encode_field(2, value)) for key, value in entries)


def _parse_tag(data: bytes, at: int) -> tuple[int, int, int]:
    tag, at = _parse_varint(data, at)
    number, kind = tag >> 3, tag & 7
    if not 1 <= number < 1 << 29:
        raise WireError(WireFault.MALFORMED, f"field number {number} is out of range")
    return number, kind, at


def _parse_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            raise WireError(WireFault.TRUNCATED, "message ends inside a number")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & (1 << 64) - 1, at + index + 1
    raise WireError(WireFault.MALFORMED, f"number is longer than {_MAX_VARINT_BYTES} bytes")


def _parse_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _parse_varint(data, at)
    if length > len(data) - at:
        raise WireError(WireFault.TRUNCATED, "message ends inside a field")
    return data[at : at + length], at + length


def _skip(data: bytes, at: int, number: int, kind: int, depth: int) -> int:
    if kind == _VARINT:
        return _parse_varint(data, at)[1]
    if kind == _BYTES:
        return _parse_bytes(data, at)[1]
    if kind in (_FIXED32, _FIXED64):
        end = at + (4 if kind == _FIXED32 else 8)
        if end > len(data):
            raise WireError(WireFault.TRUNCATED, "message ends inside a fixed-size field")
        return end
    if kind == _GROUP_START and depth < _MAX_GROUP_DEPTH:
        return _skip_group(data, at, number, depth + 1)
    raise WireError(WireFault.MALFORMED, f"field {number} has wire type {kind}")


def _skip_group(data: bytes, at: int, group: int, depth: int) -> int:
    while at < len(data):
        number, kind, at = _parse_tag(data, at)
        if kind == _GROUP_END:
            if number != group:
                raise WireError(WireFault.MALFORMED, f"group {group} ends as group {number}")
            return at
        at = _skip(data, at, number, kind, depth)
    raise WireError(WireFault.TRUNCATED, "message ends inside a group")


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
