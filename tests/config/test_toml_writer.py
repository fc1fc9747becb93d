"""The TOML that is written is read as the same value."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.config.file.writer import TomlValue, encode_pair, encode_string, encode_table

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES: st.SearchStrategy[TomlValue] = st.recursive(
    TEXTS | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_a_table_is_read_as_it_was(table: dict[str, TomlValue]) -> None:
    assert tomllib.loads(encode_table("", table)) == table
    assert tomllib.loads(encode_table("[[a]]", table)) == {"a": [table]}


def test_a_long_list_has_one_element_per_line() -> None:
    assert encode_pair("target", ["x" * 60, "y" * 60]) == f'target = [\n  "{"x" * 60}",\n  "{"y" * 60}",\n]'
    assert encode_pair("target", ["x", 1]) == 'target = ["x", 1]'


def test_a_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_string("\udcff")
