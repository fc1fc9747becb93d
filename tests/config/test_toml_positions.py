"""Each key and element of a TOML document has a line, in every spelling that TOML allows."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnel.config.file.positions import MAX_DEPTH, NestingError, TomlPath, scan_lines

DOCUMENT = '''\
# a comment with "quotes and [brackets]
first = 1  # comment
a.b = "x # no comment"
"quo.ted".'li t' = """several
lines \\""" and "" quotes"""
'' = \'\'\'
it's\'\'\'\'\'
list = [  # comment ]
  1, [2,
  3], "]",
  { x = 1, y.z = '}' },
]
[t.u]  # comment
k = 1979-05-27 07:32:00
[[s]]
n = 1
[s.sub]
m = 2
[[s]]
n = """a"""""
[[s.deep]]
q = {}
[[s.deep]]
"\\u0041\\n" = -inf
'''
LINES = {
    (): 1,
    ("first",): 2,
    ("a",): 3,
    ("a", "b"): 3,
    ("quo.ted",): 4,
    ("quo.ted", "li t"): 4,
    ("",): 6,
    ("list",): 8,
    ("list", 0): 9,
    ("list", 1): 9,
    ("list", 1, 0): 9,
    ("list", 1, 1): 10,
    ("list", 2): 10,
    ("list", 3): 11,
    ("list", 3, "x"): 11,
    ("list", 3, "y"): 11,
    ("list", 3, "y", "z"): 11,
    ("t",): 13,
    ("t", "u"): 13,
    ("t", "u", "k"): 14,
    ("s",): 15,
    ("s", 0): 15,
    ("s", 0, "n"): 16,
    ("s", 0, "sub"): 17,
    ("s", 0, "sub", "m"): 18,
    ("s", 1): 19,
    ("s", 1, "n"): 20,
    ("s", 1, "deep"): 21,
    ("s", 1, "deep", 0): 21,
    ("s", 1, "deep", 0, "q"): 22,
    ("s", 1, "deep", 1): 23,
    ("s", 1, "deep", 1, "A\n"): 24,
}


def paths_of(value: object, path: TomlPath = ()) -> Iterator[TomlPath]:
    yield path
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in pairs:
        yield from paths_of(inner, (*path, step))


def test_each_spelling_has_its_line() -> None:
    assert scan_lines(DOCUMENT) == LINES
    assert set(paths_of(tomllib.loads(DOCUMENT))) == set(LINES)


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\r", exclude_categories=("Cc",)), max_size=8
) | st.sampled_from(["#", '"', "'", '"""', "]", "}", "\n", "\\", "a.b", "=", ","])
BARE = st.from_regex(r"[A-Za-z0-9_-]{1,4}", fullmatch=True)


def quoted(text: str) -> str:
    return '"' + "".join(f"\\u{ord(sign):04x}" if sign in '"\\\n' else sign for sign in text) + '"'


@st.composite
def strings(draw: st.DrawFn) -> str:
    text = draw(TEXTS)
    spellings = [quoted(text), '"""' + "\n" * draw(st.integers(0, 2)) + quoted(text)[1:-1] + '"""']
    if "'" not in text:
        spellings.append(f"'''{text}'''")
        if "\n" not in text:
            spellings.append(f"'{text}'")
    return draw(st.sampled_from(spellings))


BLANKS = st.sampled_from(["", " ", "\t", "\n", "  # a ] comment }\n", "\n\n"])
SCALARS = strings() | st.sampled_from(
    ["1", "-0.5", "true", "inf", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00", "0x1F", "1e3"]
)


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    elements = [draw(BLANKS) + draw(inner) + draw(BLANKS) for _ in range(draw(st.integers(0, 3)))]
    return f"[{','.join(elements)}{',' if elements and draw(st.booleans()) else ''}{draw(BLANKS)}]"


@st.composite
def inline_tables(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    names = draw(st.lists(TEXTS.map(quoted) | BARE, max_size=3, unique_by=lambda name: name.strip('"')))
    return "{" + ",".join(f" {name} = {draw(inner)} " for name in names) + "}"


VALUES = st.recursive(SCALARS, lambda inner: arrays(inner) | inline_tables(inner), max_leaves=6)


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines = []
    for _ in range(draw(st.integers(0, 8))):
        key = " . ".join(draw(st.lists(BARE | TEXTS.map(quoted), min_size=1, max_size=3)))
        kind = draw(st.sampled_from(["pair", "pair", "table", "array", "blank"]))
        header = {"table": f"[ {key} ]", "array": f"[[{key}]]", "blank": draw(BLANKS), "pair": ""}[kind]
        lines.append(header or f"  {key} = {draw(VALUES)} # comment")
    return "\n".join(lines)


@settings(max_examples=500, deadline=None)
@given(documents())
def test_every_path_that_tomllib_finds_has_a_line_in_the_document(text: str) -> None:
    try:
        value: Mapping[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a key twice
    lines = scan_lines(text)
    assert set(lines) == set(paths_of(value))
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab.=[]{}\"'#\n ,\\u1") | st.characters(), max_size=40))
def test_noise_raises_no_other_error(text: str) -> None:
    with suppress(NestingError):
        scan_lines(text)


@pytest.mark.parametrize(
    "text",
    [
        f"a = {'[' * (MAX_DEPTH + 1)}{']' * (MAX_DEPTH + 1)}",
        f"\na = {'{ a = ' * (MAX_DEPTH + 1)}1{'}' * (MAX_DEPTH + 1)}",
        f"{'a.' * MAX_DEPTH}a = 1",
        f"[{'a.' * MAX_DEPTH}a]",
        f"[[{'a.' * MAX_DEPTH}a]]",
        f"a = {{ {'a.' * MAX_DEPTH}a = 1 }}",
    ],
)
def test_a_document_that_is_too_deep_is_refused_at_its_line(text: str) -> None:
    with pytest.raises(NestingError) as caught:
        scan_lines(text)
    assert caught.value.line == 1 + text.count("\n")


@pytest.mark.parametrize("unit", ["[", "a=[\n", "a={b=", "a.", '"', "'''", "#\n", "\\", "[a]\n", "[[a]]\n", "a=1\n"])
def test_a_long_document_takes_time_in_proportion(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    begin = time.process_time()
    with suppress(NestingError):
        scan_lines(text)
    assert time.process_time() - begin < 60  # quadratic would be hours
