"""What a command says by itself: the answer on standard output, remarks on standard error.

Knows which goes where, that a remark is one line whatever it quotes, and who is a person; must not know what is said.
"""

from __future__ import annotations

import sys

from tunnel.log import one_line

_NAME = "tunnel"


def show(text: str) -> None:
    """What was asked for, now."""
    sys.stdout.write(text)
    sys.stdout.flush()


def say(line: str) -> None:
    """What one should know besides, now."""
    sys.stderr.write(one_line(f"{_NAME}: {line}") + "\n")
    sys.stderr.flush()


def has_person() -> bool:
    """Whether somebody waits before a terminal."""
    return sys.stderr.isatty()


def say_to_person(line: str) -> None:
    """What only such a person wants to know."""
    if has_person():
        say(line)
