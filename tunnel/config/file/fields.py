"""Values of keys set as the fields of a frozen value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from tunnel.config.file.schema import Key
from tunnel.lazy_dataclass import replace

T = TypeVar("T")


def build_fields(base: T, keys: Iterable[Key], values: Mapping[str, Any]) -> T:
    """The value with the fields of the keys that are given."""
    for key in keys:
        if key.field and key.name in values:
            base = _set_field(base, key.field.split("."), values[key.name])
    return base


def _set_field(base: Any, path: list[str], value: Any) -> Any:
    name, *inner = path
    return replace(base, **{name: _set_field(getattr(base, name), inner, value) if inner else value})
