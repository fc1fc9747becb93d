"""TOML text of plain values: tables, arrays of tables, and one line for everything else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

TomlValue = str | int | float | bool | Sequence["TomlValue"] | Mapping[str, "TomlValue"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_LINE_WIDTH = 100


def encode_value(value: TomlValue) -> str:
    """The value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return encode_string(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{encode_key(key)} = {encode_value(inner)}" for key, inner in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return f"[{', '.join(map(encode_value, value))}]"


def encode_string(text: str) -> str:
    """A basic string; raises UnicodeEncodeError for a text that is not Unicode."""
    text.encode()
    return f'"{"".join(map(_encode_character, text))}"'


def encode_key(key: str) -> str:
    """A key, quoted if it must be."""
    return key if _BARE.fullmatch(key) else encode_string(key)


def encode_pair(key: str, value: TomlValue) -> str:
    """`KEY = VALUE`; a list that is too long for one line has one element per line."""
    line = f"{encode_key(key)} = {encode_value(value)}"
    if len(line) <= _LINE_WIDTH or isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        return line
    elements = "".join(f"  {encode_value(element)},\n" for element in value)
    return f"{encode_key(key)} = [\n{elements}]"


def encode_table(header: str, table: Mapping[str, TomlValue]) -> str:
    """A table with its header, such as `[status]` or `[[server]]`; none for the top of a document."""
    lines = [header] if header else []
    lines += [encode_pair(key, value) for key, value in table.items()]
    return "".join(f"{line}\n" for line in lines)


def _encode_character(sign: str) -> str:
    if sign in _ESCAPES:
        return _ESCAPES[sign]
    return sign if sign.isprintable() else f"\\u{ord(sign):04X}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08X}"
