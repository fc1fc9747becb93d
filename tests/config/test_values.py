"""The parsers of single values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.config.values import (
    one_of,
    parse_domain,
    parse_duration,
    parse_id,
    parse_limit,
    parse_positive_duration,
    parse_uint32,
)
from tunnel.errors import ConfigError

DURATIONS = [
    ("0", 0.0),
    ("-0", 0.0),
    ("+0", 0.0),
    ("0s", 0.0),
    ("10s", 10.0),
    ("+10s", 10.0),
    ("-10s", -10.0),
    ("250ms", 0.25),
    ("1h30m", 5400.0),
    ("2h45m", 9900.0),
    ("1.5h", 5400.0),
    (".5s", 0.5),
    ("1.s", 1.0),
    ("2d", 172800.0),
    ("1w", 604800.0),
    ("1w2d3h4m5s", 604800.0 + 172800 + 10800 + 240 + 5),
    ("1m1m", 120.0),
    ("100us", 1e-4),
    ("100\u00b5s", 1e-4),
    ("100\u03bcs", 1e-4),
    ("100ns", 1e-7),
    ("1m30ms", 60.03),
]
NO_DURATIONS = [
    "",
    "s",
    "1",
    "10",
    "1.5",
    "-",
    "+",
    "1x",
    "1S",
    "1 s",
    " 1s",
    "1s ",
    "1s\n",
    "--1s",
    "1s-1s",
    ".s",
    "1,5s",
    "\u0661s",
]
NO_DURATIONS += ["00", "1e3s", "0x1s", "inf", "nan", "h", "1h30"]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_a_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="invalid duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["1", "10", "1.5", "-3"])
def test_a_duration_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="missing unit in duration"):
        parse_duration(text)


def test_a_duration_over_292_years_is_refused() -> None:
    assert parse_duration("2562047h") == 2562047 * 3600
    for text in ("2562048h", "9" * 400 + "h"):
        with pytest.raises(ConfigError, match="too long"):
            parse_duration(text)


def test_limits_are_not_negative_and_some_durations_are_above_zero() -> None:
    assert parse_limit("0") == 0
    assert parse_limit("1s") == 1
    assert parse_positive_duration("1ms") == 0.001
    for parse, text in ((parse_limit, "-1s"), (parse_positive_duration, "-1s"), (parse_positive_duration, "0")):
        with pytest.raises(ConfigError):
            parse(text)


NUMBERS = [
    ("0", 0),
    ("16", 16),
    ("0x10", 16),
    ("0XfF", 255),
    ("0b101", 5),
    ("0o17", 15),
    ("017", 15),
    ("1_000", 1000),
    ("0x_ff", 255),
    ("00", 0),
    ("4294967295", 2**32 - 1),
]
NO_NUMBERS = [
    "",
    "-1",
    "+1",
    "1.5",
    "1e3",
    "x",
    "0x",
    "08",
    "1__0",
    "_1",
    "1_",
    " 1",
    "1 ",
    "1\n",
    "4294967296",
    "\u0661",
    "9" * 5000,
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_a_number_is_read_as_go_reads_it(text: str, number: int) -> None:
    assert parse_uint32(text) == number


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_an_invalid_number_of_32_bits_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_uint32(text)


def test_an_id_names_a_workload() -> None:
    assert str(parse_id("spiffe://a.test/w")) == "spiffe://a.test/w"
    for text in ("spiffe://a.test", "a.test/w", "", "spiffe://a.test/*"):
        with pytest.raises(ConfigError):
            parse_id(text)


def test_a_domain_is_a_name_or_an_id() -> None:
    assert parse_domain("a.test") == parse_domain("spiffe://a.test")
    for text in ("spiffe://a.test/w", "", "*", "A.test"):
        with pytest.raises(ConfigError):
            parse_domain(text)


def test_a_choice_accepts_its_words_only() -> None:
    parse = one_of("a", "b", "")
    assert [parse(word) for word in ("a", "b", "")] == ["a", "b", ""]
    with pytest.raises(ConfigError, match="enum value must be one of a,b,, got 'A'"):
        parse("A")


@given(st.text(max_size=20), st.sampled_from([parse_duration, parse_uint32, parse_id, parse_domain]))
def test_any_text_is_a_value_or_a_config_error(text: str, parse: Callable[[str], object]) -> None:
    with suppress(ConfigError):
        parse(text)
