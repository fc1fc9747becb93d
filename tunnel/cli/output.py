"""What a command prints: results on standard output, messages on standard error."""

from __future__ import annotations

import sys

from tunnel.log import one_line

_NAME = "tunnel"


def print_output(text: str) -> None:
    """Write the result of a command, flushed."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_message(message: str) -> None:
    """Write a message as one line, with line breaks in it escaped, and flush."""
    sys.stderr.write(one_line(f"{_NAME}: {message}") + "\n")
    sys.stderr.flush()


def is_interactive() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()


def print_if_interactive(message: str) -> None:
    """Write a message if standard error is a terminal."""
    if is_interactive():
        print_message(message)
