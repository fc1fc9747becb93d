"""Dataclasses that compile their constructor when the first instance is made, with the options that this program uses.

The standard library compiles six methods when it defines a class: 0.5 ms for each class, a quarter of a start. To mypy these
are the standard library's dataclasses, and they mean the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

_MISSING: Final = object()
_FIELDS, _KEY = "__lazy_fields__", "__lazy_key__"  # of a class: its fields by name, and the function to the values compared
_NO_NAMESPACE: Mapping[str, Any] = {}


class _Field:
    """How one field is set, shown and compared: the parameters of `dataclasses.field`."""

    __slots__ = ("compare", "default", "default_factory", "init", "kw_only", "metadata", "name", "repr")

    def __init__(
        self,
        *,
        default: Any = _MISSING,
        default_factory: Any = _MISSING,
        init: bool = True,
        repr: bool = True,
        compare: bool = True,
        kw_only: bool = False,
        metadata: Mapping[str, Any] = _NO_NAMESPACE,
    ) -> None:
        if type(default).__hash__ is None:
            raise TypeError(f"mutable default {default!r}; expected default_factory")
        self.name = ""
        self.default, self.default_factory, self.metadata = default, default_factory, metadata
        self.init, self.repr, self.compare, self.kw_only = init, repr, compare, kw_only


def _define(cls: Any = None, /, *, frozen: bool = False, slots: bool = False, eq: bool = True, order: bool = False) -> Any:
    """Make a class a dataclass, or return the decorator that does."""
    if cls is None:
        return lambda decorated: _define(decorated, frozen=frozen, slots=slots, eq=eq, order=order)
    own = {one.name: one for one in _own_fields(cls)}
    inherited: dict[str, _Field] = {}
    for base in reversed(cls.__mro__):
        inherited |= vars(base).get(_FIELDS, _NO_NAMESPACE)
    fields = inherited | own
    members = {
        _FIELDS: fields,
        _KEY: attrgetter(*[one.name for one in fields.values() if one.compare] or ["__class__"]),
        "__match_args__": tuple(one.name for one in fields.values() if one.init and not one.kw_only),
        "__init__": _constructor_of(fields, is_frozen=frozen, has_slots=slots),
        "__repr__": _show,
        **({"__setattr__": _refuse, "__delattr__": _refuse} if frozen else {}),
        **({"__getstate__": _state_of, "__setstate__": _restore} if frozen and slots else {}),
        **({"__eq__": _is_equal, "__hash__": _hash if frozen else None} if eq else {}),
        **(_ORDER if order else {}),
    }
    given = vars(cls)
    members = {name: one for name, one in members.items() if given.get(name) is None}  # __eq__ alone sets __hash__ to None
    return _with_slots(cls, own, inherited, members) if slots else _without_slots(cls, own, members)


def _own_fields(cls: type) -> Iterator[_Field]:
    given = vars(cls)
    for name, annotation in given.get("__annotations__", _NO_NAMESPACE).items():
        if not str(annotation).startswith("ClassVar"):
            value = given.get(name, _MISSING)
            one = value if isinstance(value, _Field) else _Field(default=value)
            one.name = name
            yield one


def _with_slots(cls: type, own: Mapping[str, _Field], inherited: Mapping[str, _Field], members: Mapping[str, Any]) -> type:
    kept = {name: value for name, value in vars(cls).items() if name not in own and name not in ("__dict__", "__weakref__")}
    slots = tuple(name for name in own if name not in inherited)
    namespace = {**kept, **members, "__slots__": slots, "__qualname__": cls.__qualname__}
    return type(cls)(cls.__name__, cls.__bases__, namespace)


def _without_slots(cls: type, own: Mapping[str, _Field], members: Mapping[str, Any]) -> type:
    for one in own.values():
        if one.default is not _MISSING:
            setattr(cls, one.name, one.default)
        elif one.name in vars(cls):
            delattr(cls, one.name)
    for name, member in members.items():
        setattr(cls, name, member)
    return cls


# -- the constructor


def _constructor_of(fields: Mapping[str, _Field], *, is_frozen: bool, has_slots: bool) -> Callable[..., None]:
    """Return the constructor of a class until its first instance, when a compiled one replaces it."""

    def __init__(value: Any, /, *args: Any, **given: Any) -> None:  # noqa: N807 - the name that a TypeError shows
        kind = type(value)
        compiled = _compile(kind, fields, is_frozen=is_frozen, has_slots=has_slots)
        for cls in kind.__mro__:
            if vars(cls).get("__init__") is __init__:
                cls.__init__ = compiled  # type: ignore[misc]
        compiled(value, *args, **given)

    return __init__


def _compile(kind: type, fields: Mapping[str, _Field], *, is_frozen: bool, has_slots: bool) -> Callable[..., None]:
    names: dict[str, Any] = {"_MISSING": _MISSING, "_set": object.__setattr__}
    lines = []
    for name, one in fields.items():
        names |= {f"_default_{name}": one.default, f"_factory_{name}": one.default_factory}
        if (value := _initial_value(one)) is None:
            continue
        if has_slots:
            names[f"_set_{name}"] = getattr(kind, name).__set__
            lines.append(f"_set_{name}(self, {value})")
        else:
            lines.append(f"_set(self, {name!r}, {value})" if is_frozen else f"self.{name} = {value}")
    if hasattr(kind, "__post_init__"):
        lines.append("self.__post_init__()")
    given = [one for one in fields.values() if one.init]
    keywords = [_parameter(one) for one in given if one.kw_only]
    parameters = ", ".join(
        ["self", *(_parameter(one) for one in given if not one.kw_only), *(["*", *keywords] if keywords else [])]
    )
    body = "\n ".join(lines or ["pass"])
    exec(f"def __init__({parameters}):\n {body}", names)  # noqa: S102 - made from the names of our own fields
    compiled: Callable[..., None] = names["__init__"]
    return compiled


def _initial_value(one: _Field) -> str | None:
    """Return the expression that a constructor assigns; None if it leaves the field unset."""
    if one.default_factory is not _MISSING:
        made = f"_factory_{one.name}()"
        return f"{made} if {one.name} is _MISSING else {one.name}" if one.init else made
    if one.init:
        return one.name
    return None if one.default is _MISSING else f"_default_{one.name}"


def _parameter(one: _Field) -> str:
    if one.default_factory is not _MISSING:
        return f"{one.name}=_MISSING"
    return one.name if one.default is _MISSING else f"{one.name}=_default_{one.name}"


# -- the methods that all classes share


def _show(self: Any) -> str:
    shown = [f"{one.name}={getattr(self, one.name)!r}" for one in getattr(self, _FIELDS).values() if one.repr]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _is_equal(self: Any, other: object) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    key = getattr(self, _KEY)
    return key(self) == key(other)


def _hash(self: Any) -> int:
    return hash(getattr(self, _KEY)(self))


def _refuse(self: Any, name: str, _value: object = None) -> None:
    raise AttributeError(f"{type(self).__qualname__} is immutable: cannot change {name!r}")


def _state_of(self: Any) -> list[Any]:
    """Return the values of a value without `__dict__`, for copy and pickle."""
    return [getattr(self, name) for name in getattr(self, _FIELDS)]


def _restore(self: Any, state: list[Any]) -> None:
    for name, value in zip(getattr(self, _FIELDS), state, strict=True):
        object.__setattr__(self, name, value)


def _comparison(name: str) -> Callable[[Any, Any], Any]:
    def compare(self: Any, other: object) -> Any:
        if type(self) is not type(other):
            return NotImplemented
        key = getattr(self, _KEY)
        return getattr(key(self), name)(key(other))

    return compare


_ORDER = {name: _comparison(name) for name in ("__lt__", "__le__", "__gt__", "__ge__")}


# -- the functions of the standard library for such classes


def _fields_of(value: Any) -> tuple[_Field, ...]:
    return tuple(getattr(value, _FIELDS).values())


def _replace(value: Any, /, **changes: Any) -> Any:
    for one in _fields_of(value):
        if one.init and one.name not in changes:
            changes[one.name] = getattr(value, one.name)
    return type(value)(**changes)


if TYPE_CHECKING:
    from dataclasses import MISSING as MISSING
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import fields as fields
    from dataclasses import replace as replace
else:
    MISSING, dataclass, field, fields, replace = _MISSING, _define, _Field, _fields_of, _replace
