"""The declaration of one key and of one table of a configuration file.

Reading, `tunnel config show`, the JSON Schema and the tables of the documentation are made from these declarations.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from tunnel.config.file.kinds import ValueKind
from tunnel.errors import HIDDEN
from tunnel.lazy_dataclass import MISSING, dataclass, fields


@dataclass(frozen=True)
class Key:
    """One key of a section."""

    name: str
    kind: ValueKind[Any]
    help: str
    field: str = ""  # of the section's value, such as `tls.protocols`; "" if the section's builder reads the key
    default: Any = None  # of a key without a field
    take: Callable[[Any], Any] | None = None  # the key's value in the section's value, if it is not the field
    is_required: bool = False
    mask: Callable[[str], str] | None = None  # of a text that can have a secret
    modes: tuple[str, ...] = ("server", "client")  # of listeners

    def value_of(self, section: Any) -> Any:
        """The value in the section's value; None if the key is left out."""
        if self.take is not None:
            return self.take(section)
        return attrgetter(self.field)(section) if self.field else None


@dataclass(frozen=True)
class Section:
    """One table of a file: `path` is its header in the documentation, `model` the class of its value."""

    path: str
    help: str
    model: type
    keys: tuple[Key, ...]

    def key(self, name: str) -> Key:
        """The key with this name."""
        return next(key for key in self.keys if key.name == name)

    def names(self) -> list[str]:
        """The names of all keys."""
        return [key.name for key in self.keys]

    def default_of(self, key: Key) -> Any:
        """The default of a key, None if it has none."""
        if not key.field:
            return key.default
        kind: Any = self.model
        *outer, last = key.field.split(".")
        for name in outer:
            kind = _factory_of(kind, name)
        return _default_of(kind, last)


def _factory_of(kind: Any, name: str) -> Any:
    return next(field.default_factory for field in fields(kind) if field.name == name)


def _default_of(kind: Any, name: str) -> Any:
    field = next(field for field in fields(kind) if field.name == name)
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


def mask_header(header: str) -> str:
    """The header `NAME: VALUE` with its value replaced."""
    return f"{header.partition(':')[0]}: {HIDDEN}"


def mask_credentials(url: str) -> str:
    """The URL with its user name and password replaced."""
    scheme, mark, rest = url.partition("://")
    _, at, place = rest.rpartition("@")
    return f"{scheme}{mark}{HIDDEN}@{place}" if at else url
