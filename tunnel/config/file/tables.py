"""The tables of several files merged into one configuration, and the reading of one table by its schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunnel.config.file.document import Document
from tunnel.config.file.kinds import invalid_type, parse_label
from tunnel.config.file.problem import MAX_PROBLEMS, Place, Problems, suggest
from tunnel.config.file.process_keys import PROCESS
from tunnel.config.file.schema import Key
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import dataclass, field

SINGLE = ("log", "status", "health", "metrics", "traces", "defaults")
NAMED = ("identity", "access")
LISTS = ("server", "client", "monitor")
_MAX_LISTED = 12  # names in a message
NOT_CONVERTED = "not-converted"  # what a conversion writes so that no command accepts an incomplete file
_TOP_KEYS = PROCESS.names()
Raw = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class RawTable:
    """One table with its place."""

    values: Raw
    place: Place
    meant: set[str] = field(default_factory=set)  # keys that unknown ones were probably meant to be

    def has(self, name: str) -> bool:
        """Whether the table has the key, perhaps misspelled: its absence is no second mistake."""
        return name in self.values or name in self.meant


@dataclass(slots=True)
class Tables:
    """The tables of all files; `misspelled` has the names that unknown top-level keys were probably meant to be."""

    process: dict[str, tuple[object, Place]] = field(default_factory=dict)
    single: dict[str, RawTable] = field(default_factory=dict)
    named: dict[str, dict[str, RawTable]] = field(default_factory=lambda: {name: {} for name in NAMED})
    lists: list[tuple[str, RawTable]] = field(default_factory=list)
    misspelled: set[str] = field(default_factory=set)


def merge_documents(documents: Iterable[Document], found: Problems) -> Tables:
    """The tables of all documents."""
    tables = Tables()
    for document in documents:
        before = len(tables.lists)
        top = document.place(found)
        for name, value in document.values.items():
            place = top / name
            if name in _TOP_KEYS:
                _keep_first(tables.process, name, (value, place), place, lambda kept: kept[1])
            elif name in SINGLE:
                _merge_single(tables, name, value, place)
            elif name in NAMED:
                _merge_named(tables, name, value, place)
            elif name in LISTS:
                _merge_list(tables, name, value, place)
            else:
                tables.misspelled |= refuse_unknown(name, (*_TOP_KEYS, *SINGLE, *NAMED, *LISTS), place)
        tables.lists[before:] = sorted(tables.lists[before:], key=lambda one: one[1].place.line())  # as in the file
    return tables


def read_table(table: RawTable, keys: Iterable[Key], known: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of the keys that are given and valid; unknown, missing and invalid ones are reported.

    `known` are keys that the caller reads, for suggestions.
    """
    by_name = {key.name: key for key in keys}
    values: dict[str, Any] = {}
    for name, value in table.values.items():
        place = table.place / name
        if name not in by_name:
            table.meant.update(refuse_unknown(name, (*by_name, *known), place))
            continue
        parsed = by_name[name].kind.read(value, place)
        if parsed is not None:
            values[name] = parsed
    for key in by_name.values():
        if key.is_required and not table.has(key.name):
            table.place.refuse(f"missing key {key.name}; expected {key.kind.form}")
    return values


def refuse_unknown(name: str, known: Iterable[str], place: Place) -> set[str]:
    """Report an unknown key; the name that was probably meant, if there is one."""
    names = list(known)
    has_many = len(place.found.errors) > MAX_PROBLEMS  # a search for each of a million keys would take minutes
    text, meant = suggest(name, () if has_many else names)
    if not meant and len(names) <= _MAX_LISTED:
        text = f"; expected one of {', '.join(names)}"
    if name in _TOP_KEYS and name not in names:
        text = " in this table; expected before the first [table] of the file"
    if name == NOT_CONVERTED:
        text = ": the conversion is incomplete; replace what this list names, and remove the key"
    place.refuse(f"unknown key{text}")
    return {meant} if meant else set()


def _merge_single(tables: Tables, name: str, value: object, place: Place) -> None:
    if isinstance(value, dict):
        _keep_first(tables.single, name, RawTable(value, place), place, lambda kept: kept.place)
    else:
        place.refuse(invalid_type(value, f"a table: [{name}]"))


def _merge_named(tables: Tables, kind: str, value: object, place: Place) -> None:
    if not isinstance(value, dict):
        place.refuse(invalid_type(value, f"a table: [{kind}.NAME]"))
        return
    for name, inner in value.items():
        inner_place = place / name
        if not isinstance(inner, dict):
            inner_place.refuse(invalid_type(inner, f"a table: [{kind}.NAME]"))
            continue
        try:
            parse_label(name)
        except ConfigError as error:
            inner_place.refuse(error)
            continue
        _keep_first(tables.named[kind], name, RawTable(inner, inner_place), inner_place, lambda kept: kept.place)


def _merge_list(tables: Tables, kind: str, value: object, place: Place) -> None:
    if not isinstance(value, list):
        place.refuse(invalid_type(value, f"a list of tables: [[{kind}]]"))
        return
    for index, inner in enumerate(value):
        if isinstance(inner, dict):
            tables.lists.append((kind, RawTable(inner, place / index)))
        else:
            (place / index).refuse(invalid_type(inner, f"a table: [[{kind}]]"))


def _keep_first(kept: dict[str, Any], name: str, value: Any, place: Place, place_of: Any) -> None:
    if name in kept:
        place.refuse(f"defined twice: first at {place_of(kept[name])}; expected one definition in all files")
    else:
        kept[name] = value
