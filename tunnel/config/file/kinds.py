"""Kinds of values in a configuration file: how one is read, written, and described in the JSON Schema and the documentation."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

from tunnel.config.file.problem import Place
from tunnel.config.file.writer import TomlValue
from tunnel.config.model import ClosePolicy
from tunnel.config.values import format_duration, parse_duration, parse_limit
from tunnel.errors import ConfigError, invalid_value, quote
from tunnel.lazy_dataclass import dataclass, replace

T = TypeVar("T")
JsonSchema = Mapping[str, object]

UINT32_MAX: Final = 2**32 - 1
LABEL_PATTERN: Final = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_MAX_SHOWN = 80  # characters of a value in a message
_MAX_ELEMENTS = 10_000
_SIZE = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
_DURATION_SCHEMA: JsonSchema = {
    "anyOf": [{"type": "string", "pattern": rf"^[+-]?(0|({_SIZE}(ns|us|µs|μs|ms|s|m|h|d|w))+)$"}, {"const": 0}]
}
_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a float"),
    (str, "a string"),
    (list, "a list"),
    (dict, "a table"),
    ((date, time), "a date or time"),
)


class _Reported(Exception):
    """The mistakes of a value are reported already."""


@dataclass(frozen=True)
class ValueKind(Generic[T]):
    """One kind of value; `form` describes it in a sentence and in the documentation."""

    form: str
    parse: Callable[[object, Place], T]  # raises ConfigError, or _Reported
    encode: Callable[[T], TomlValue | None]  # None if the key is left out
    schema: JsonSchema

    def read(self, value: object, place: Place) -> T | None:
        """The value; None after a mistake, which is reported at the place."""
        try:
            return self.parse(value, place)
        except ConfigError as error:
            place.refuse(str(error))
        except _Reported:
            pass
        return None


def invalid_type(value: object, expected: str) -> ConfigError:
    """The error for a value of another type."""
    found = next((name for kind, name in _TYPES if isinstance(value, kind)), "another type")
    return ConfigError(f"invalid type: {found}; expected {expected}")


def text(form: str, parse: Callable[[str], T], encode: Callable[[T], str] = str, pattern: str = "") -> ValueKind[T]:
    """A string that a parser accepts."""

    def read(value: object, place: Place) -> T:
        if not isinstance(value, str):
            raise invalid_type(value, form)
        return parse(value)

    return ValueKind(form, read, encode, {"type": "string", **({"pattern": pattern} if pattern else {})})


def checked_text(form: str, parse: Callable[[str], object]) -> ValueKind[str]:
    """A string that a parser accepts, unchanged: what it is parsed to is of no use before the start."""

    def check(value: str) -> str:
        parse(value)
        return value

    return text(form, check)


def words(meanings: Mapping[str, T]) -> ValueKind[T]:
    """One of several words, each with its value."""
    *first, last = (f'"{word}"' for word in meanings)
    form = f"{', '.join(first)} or {last}"

    def read(value: object, place: Place) -> T:
        if not isinstance(value, str):
            raise invalid_type(value, form)
        if value not in meanings:
            raise _invalid_word(value, form)
        return meanings[value]

    def encode(value: T) -> TomlValue | None:
        return next((word for word, meant in meanings.items() if meant == value), None)

    return ValueKind(form, read, encode, {"enum": list(meanings)})


def switch(*, is_inverted: bool = False) -> ValueKind[bool]:
    """A boolean; an inverted one is `true` in the file where the value is False."""

    def read(value: object, place: Place) -> bool:
        if not isinstance(value, bool):
            raise invalid_type(value, "true or false")
        return value != is_inverted

    return ValueKind("true or false", read, lambda value: value != is_inverted, {"type": "boolean"})


def integer(highest: int = UINT32_MAX, lowest: int = 0) -> ValueKind[int]:
    """A number between two others."""
    form = f"a number from {lowest} to {highest}"

    def read(value: object, place: Place) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid_type(value, form)
        if not lowest <= value <= highest:
            raise ConfigError(
                f"invalid number {_shorten(hex(value) if value.bit_length() > 64 else str(value))}; expected {form}"
            )
        return value

    return ValueKind(form, read, lambda value: value, {"type": "integer", "minimum": lowest, "maximum": highest})


def number() -> ValueKind[float]:
    """A number of 0 or more, with or without a fraction."""
    form = "a number of 0 or more"

    def read(value: object, place: Place) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid_type(value, form)
        if not 0 <= value <= UINT32_MAX:  # false for nan
            raise ConfigError(f"invalid number {_shorten(str(value))}; expected 0 to {UINT32_MAX}")
        return float(value)

    def encode(value: float) -> TomlValue:
        return int(value) if value == int(value) else value

    return ValueKind(form, read, encode, {"type": "number", "minimum": 0, "maximum": UINT32_MAX})


def ratio() -> ValueKind[float]:
    """A number above 0 and at most 1."""
    form = "a number above 0 and at most 1"

    def read(value: object, place: Place) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid_type(value, form)
        if not 0 < value <= 1:  # false for nan
            raise ConfigError(f"invalid number {_shorten(str(value))}; expected {form}")
        return float(value)

    return ValueKind(form, read, lambda value: value, {"type": "number", "exclusiveMinimum": 0, "maximum": 1})


def duration(parse: Callable[[str], float]) -> ValueKind[float]:
    """A duration such as `10s`; the integer 0 needs no unit and no quotes."""
    form = 'a duration such as "10s"'

    def read(value: object, place: Place) -> float:
        if isinstance(value, int) and not isinstance(value, bool) and value == 0:
            return parse("0")
        if not isinstance(value, str):
            raise invalid_type(value, form)
        return parse(value)

    return ValueKind(form, read, encode_duration, _DURATION_SCHEMA)


def encode_duration(seconds: float) -> str:
    """A duration that is read as exactly these seconds."""
    shown = format_duration(seconds)
    try:
        is_exact = parse_duration(shown) == seconds
    except ConfigError:  # an exponent
        is_exact = False
    return shown if is_exact else f"{Decimal(repr(seconds)):f}s"


def close_policy() -> ValueKind[ClosePolicy]:
    """`close`, `keep`, or the time until a connection is closed."""
    form = '"close", "keep" or a duration such as "10s"'
    grace = duration(parse_limit)
    special = {"close": 0.0, "keep": math.inf}

    def read(value: object, place: Place) -> ClosePolicy:
        if isinstance(value, str) and value.isalpha():
            if value not in special:
                raise _invalid_word(value, form)
            return ClosePolicy(special[value])
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise invalid_type(value, form)
        return ClosePolicy(grace.parse(value, place))

    def encode(value: ClosePolicy) -> TomlValue:
        return next((word for word, seconds in special.items() if seconds == value.grace), None) or encode_duration(value.grace)

    return ValueKind(form, read, encode, {"anyOf": [{"enum": list(special)}, _DURATION_SCHEMA]})


def listing(element: ValueKind[T], *, can_be_empty: bool = True, is_often_one: bool = False) -> ValueKind[tuple[T, ...]]:
    """A list; one value can stand without brackets, and is written so if lists often have one."""

    def read(value: object, place: Place) -> tuple[T, ...]:
        if not isinstance(value, list):
            return (element.parse(value, place),)
        if not value and not can_be_empty:
            raise ConfigError(f"empty list; expected {element.form}, or several")
        if len(value) > _MAX_ELEMENTS:
            raise ConfigError(f"{len(value)} elements; expected at most {_MAX_ELEMENTS}")
        found = [element.read(inner, place / index) for index, inner in enumerate(value)]
        valid = tuple(inner for inner in found if inner is not None)
        if len(valid) < len(found):
            raise _Reported
        return valid

    def encode(value: Sequence[T]) -> TomlValue | None:
        encoded = [element.encode(inner) for inner in value]
        shown = [inner for inner in encoded if inner is not None]
        return shown[0] if is_often_one and len(shown) == 1 else shown or None

    least = {} if can_be_empty else {"minItems": 1}
    schema = {"anyOf": [element.schema, {"type": "array", "items": element.schema, **least}]}
    return ValueKind(f"{element.form}, or a list", read, encode, schema)


def file_name() -> ValueKind[str]:
    """The name of a file; a relative one is relative to the directory of the configuration file."""
    form = "a file name"

    def read(value: object, place: Place) -> str:
        if not isinstance(value, str):
            raise invalid_type(value, form)
        if not value or "\0" in value:
            raise invalid_value("file name", _shorten(value), "NUL character" if value else "empty")
        return locate(value, place)

    return ValueKind(form, read, lambda value: value or None, {"type": "string", "minLength": 1})


def locate(path: str, place: Place) -> str:
    """The path as seen from the working directory."""
    return os.path.join(place.file.folder, path)


def socket_path(inner: ValueKind[T], path_of: Callable[[T], str]) -> ValueKind[T]:
    """An address; the relative path of a Unix socket is relative to the directory of the configuration file."""

    def read(value: object, place: Place) -> T:
        address = inner.parse(value, place)
        path = path_of(address)
        if not isinstance(value, str) or not path or path.startswith(("/", "@")):
            return address
        return inner.parse(value.removesuffix(path) + locate(path, place), place)

    return replace(inner, parse=read)


def optional(inner: ValueKind[Any]) -> ValueKind[Any]:
    """The same kind for a field whose value None or `` means that the key is left out."""
    return replace(inner, encode=lambda value: inner.encode(value) if value is not None and value != "" else None)


def label() -> ValueKind[str]:
    """The name of a listener, an identity or an access list."""
    return text("a name", parse_label, pattern=LABEL_PATTERN)


def parse_label(value: str) -> str:
    """A name of letters, digits and few signs; raises ConfigError."""
    if not re.fullmatch(LABEL_PATTERN.removesuffix("$"), value):
        raise invalid_value("name", _shorten(value), expected="1 to 63 letters, digits, dots, underscores and hyphens")
    return value


def _invalid_word(value: str, form: str) -> ConfigError:
    return ConfigError(f"invalid value {quote(_shorten(value))}; expected {form}")


def _shorten(value: str) -> str:
    return value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}..."
