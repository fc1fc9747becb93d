"""Our dataclasses behave as those of the standard library do."""

from __future__ import annotations

import copy
import dataclasses
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Generic, TypeVar

import pytest

import tunnel
from tunnel import lazy_dataclass

T = TypeVar("T")
BOTH = pytest.mark.parametrize("library", [dataclasses, lazy_dataclass], ids=["standard", "ours"])


def make_value(library: Any) -> Any:
    @library.dataclass(frozen=True, slots=True)
    class Value:
        """A value."""

        kind: ClassVar[str] = "value"
        name: str
        secret: str = library.field(default="s", repr=False)
        note: str = library.field(default="", compare=False)
        names: list[str] = library.field(default_factory=list)
        size: int = library.field(init=False, repr=False, compare=False)
        limit: int = library.field(default=7, init=False)
        only: int = library.field(default=1, kw_only=True)

        def __post_init__(self) -> None:
            object.__setattr__(self, "size", len(self.name))

    return Value


@BOTH
def test_fields_are_set_by_position_by_name_and_by_default(library: Any) -> None:
    kind = make_value(library)
    one = kind("ab", "t", names=["c"], only=2)
    assert (one.name, one.secret, one.note, one.names, one.size, one.limit, one.only) == ("ab", "t", "", ["c"], 2, 7, 2)
    assert kind("x").names is not kind("x").names
    assert kind.kind == "value"
    assert kind.__match_args__ == ("name", "secret", "note", "names")


@BOTH
@pytest.mark.parametrize("arguments", [(), ("a", "b", "c", [], 5), ("a", "b", "c", [], 5, 6)])
def test_wrong_arguments_are_refused_at_every_call(library: Any, arguments: tuple[object, ...]) -> None:
    kind = make_value(library)
    for _ in range(2):
        with pytest.raises(TypeError, match="__init__"):
            kind(*arguments)
    with pytest.raises(TypeError, match="other"):
        kind("a", other=1)


@BOTH
def test_a_frozen_value_cannot_be_changed(library: Any) -> None:
    one = make_value(library)("a")
    with pytest.raises(AttributeError):
        one.name = "b"
    with pytest.raises(AttributeError):
        del one.name
    with pytest.raises((AttributeError, TypeError)):  # the standard library's fails in another way
        one.other = "b"
    assert one.name == "a"
    assert not hasattr(one, "__dict__")


@BOTH
def test_the_text_leaves_out_what_it_is_told_to(library: Any) -> None:
    text = repr(make_value(library)("a", "secret"))
    assert text == "make_value.<locals>.Value(name='a', note='', names=[], limit=7, only=1)"


@BOTH
def test_values_are_equal_by_the_fields_that_count(library: Any) -> None:
    kind = make_value(library)
    assert kind("a", note="x") == kind("a", note="y")
    assert kind("a") != kind("b")
    assert kind("a") != make_value(library)("a")
    assert kind("a") != "a"

    @library.dataclass(frozen=True)
    class Single:
        name: str

    @library.dataclass(frozen=True, slots=True)
    class Empty:
        pass

    assert len({Single("a"), Single("a"), Single("b"), Empty(), Empty()}) == 3


@BOTH
def test_only_ordered_values_are_ordered(library: Any) -> None:
    @library.dataclass(frozen=True, slots=True, order=True)
    class Version:
        major: int
        minor: int = 0

    assert sorted([Version(2), Version(1, 5), Version(1)]) == [Version(1), Version(1, 5), Version(2)]
    assert Version(1) <= Version(1) < Version(1, 1) > Version(0) >= Version(0)
    with pytest.raises(TypeError):
        _ = Version(1) < 2
    with pytest.raises(TypeError):
        _ = make_value(library)("a") < make_value(library)("b")


@BOTH
def test_a_mutable_dataclass_can_be_changed_and_has_no_hash(library: Any) -> None:
    for slots in (True, False):

        @library.dataclass(slots=slots)
        class Counts:
            first: int = 0
            words: dict[str, int] = library.field(default_factory=dict)

        one = Counts()
        one.first += 1
        assert (one, one.first) == (Counts(1), 1)
        with pytest.raises(TypeError):
            hash(one)


@BOTH
def test_a_class_can_be_compared_by_identity(library: Any) -> None:
    @library.dataclass(frozen=True, eq=False)
    class Flag:
        name: str

    one = Flag("a")
    assert one != Flag("a")
    assert len({one, Flag("a")}) == 2


@BOTH
def test_methods_of_the_class_stay(library: Any) -> None:
    @library.dataclass(frozen=True, slots=True)
    class Odd:
        name: str

        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "odd"

    assert Odd("a") == Odd("b")
    assert repr(Odd("a")) == "odd"
    assert hash(Odd("a")) == hash(Odd("a"))


@BOTH
def test_fields_are_inherited(library: Any) -> None:
    class Rule(ABC):
        __slots__ = ()

        @abstractmethod
        def matches(self) -> bool: ...

    @library.dataclass(frozen=True, slots=True)
    class Base(Rule, Generic[T]):
        name: T
        code: int = 1

        def matches(self) -> bool:
            return True

    @library.dataclass(frozen=True, slots=True)
    class Derived(Base[str]):
        code: int = 2
        extra: str = "e"

    @library.dataclass(frozen=True, slots=True)
    class Same(Base[str]):
        """No field of its own."""

    assert repr(Derived("a")).endswith("Derived(name='a', code=2, extra='e')")
    assert Derived("a") != Base("a", 2)
    assert Same("a").code == Base("a").code == 1
    assert not hasattr(Same("a"), "__dict__")
    with pytest.raises(TypeError):
        Rule()


@BOTH
def test_a_class_without_decorator_uses_the_constructor_of_its_base(library: Any) -> None:
    class Special(make_value(library)):  # type: ignore[misc]
        __slots__ = ()

    assert Special("a").name == "a"
    assert Special.__mro__[1]("b").name == "b"
    assert Special("c").size == 1


@BOTH
def test_a_mutable_default_is_refused(library: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="mutable default"):

        @library.dataclass
        class Wrong:
            names: list[str] = []  # noqa: RUF012


@BOTH
def test_replace_copies_all_other_fields(library: Any) -> None:
    one = make_value(library)("a", "t", only=5)
    changed = library.replace(one, name="bcd")
    assert (changed.name, changed.secret, changed.size, changed.only) == ("bcd", "t", 3, 5)
    with pytest.raises(TypeError):
        library.replace(one, other=1)


@BOTH
def test_a_value_can_be_copied(library: Any) -> None:
    one = make_value(library)("a", "t", "note", ["b"], only=5)
    copied = copy.copy(one)
    assert copied is not one
    assert repr(copied) == repr(one)
    assert (copied.secret, copied.size) == ("t", 1)


@BOTH
def test_fields_tell_names_and_defaults(library: Any) -> None:
    @library.dataclass
    class Counts:
        first: int
        second: int = library.field(default=3, metadata={"export": "x"})
        words: dict[str, int] = library.field(default_factory=dict)

    first, second, words = library.fields(Counts)
    assert (first.name, first.default, first.default_factory) == ("first", library.MISSING, library.MISSING)
    assert (second.default, second.metadata["export"]) == (3, "x")
    assert words.default_factory is dict
    assert Counts(1).second == Counts.second == 3


def test_threads_may_make_the_first_instances_at_once() -> None:
    for _ in range(20):
        kind = make_value(lazy_dataclass)
        start, made = threading.Barrier(4), []

        def make(kind: Any = kind, start: threading.Barrier = start, made: list[Any] = made) -> None:
            start.wait(60)
            made.append(kind("a"))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [kind("a")] * 4


def test_no_module_uses_those_of_the_standard_library() -> None:
    package = Path(tunnel.__file__).parent
    ours: ModuleType = lazy_dataclass
    sources = [path for path in package.rglob("*.py") if path != Path(str(ours.__file__))]
    assert [str(path) for path in sources if "from dataclasses import" in path.read_text()] == []
