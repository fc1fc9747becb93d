"""Every invalid value of every flag gives an error of one form: the flag, the value, the problem, what is expected."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tunnel.cli.command import Flag
from tunnel.cli.parser import parse_value
from tunnel.commands.registry import load_commands
from tunnel.errors import ConfigError

# `invalid WHAT "TEXT": PROBLEM; expected EXPECTED`; a text that is too long is not quoted, and a choice has kingpin's words.
FORM = re.compile(
    r"--[a-z0-9-]+: "
    r"(invalid [\w -]+ \".*\"(: .+?)?(; expected .+)?|invalid [\w -]+: longer than .+|enum value must be one of .+)",
    re.DOTALL,
)
FLAGS = {flag.name + flag.placeholder: flag for command in load_commands() for flag in command.flags if flag.parse is not None}
TEXTS = (
    *("", "\n", "x y", '"', "'", "=x", ":", "/", "-1", "9" * 30, "\u00e9" * 3000, "\udcff", "a.b."),
    *("http://", "unix:", "unix:///a%zz", "tcp://a:1", "spiffe://A", "spiffe://a.test", "systemd:", "md5:AA=="),
)


def mistake(flag: Flag[Any], text: str) -> str:
    try:
        parse_value(flag.parse, text, f"--{flag.name}")
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS)
def test_an_invalid_value_is_refused_in_one_form(flag: Flag[Any]) -> None:
    mistakes = [error for text in TEXTS if (error := mistake(flag, text))]
    assert [error for error in mistakes if not FORM.fullmatch(error)] == []
    assert all(error.isprintable() or "enum value" in error for error in mistakes)


def test_the_form_is_that_of_the_style_guide() -> None:
    assert (
        mistake(FLAGS["listenADDR"], "foo") == '--listen: invalid address "foo": missing port; expected HOST:PORT or unix:PATH'
    )
