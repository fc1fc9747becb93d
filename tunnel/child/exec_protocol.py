"""What a waiting child is told over its pipe, and what it answers when that cannot be run.

Knows the bytes, the search path and a shell's words for a failure; must not know processes. No pickle: both ends are ours,
but a child between fork and exec should do as little as possible.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tunnel.errors import CommandError, describe_os_error
from tunnel.log import escape

NOT_EXECUTABLE: Final = 126  # POSIX.1-2024, Shell, 2.8.2
NOT_FOUND: Final = 127
_SIGNALLED: Final = 128
ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)

_SIZE = struct.Struct("=Q")  # of what follows
_COUNT = struct.Struct("=I")
_ANSWER = struct.Struct("=i?")


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """What to run: the first of `places` that can be; everything as the kernel takes it."""

    places: tuple[bytes, ...]
    argv: tuple[bytes, ...]
    environ: tuple[bytes, ...]  # NAME=VALUE


@dataclass(frozen=True, slots=True)
class ExecFailure:
    """Why nothing could be run: the errno, and whether there was a file at all."""

    number: int
    is_there: bool


def build_exec_request(argv: Sequence[str], environ: Mapping[str, str]) -> ExecRequest:
    """The order to run a command, which is searched for as a shell does when its name has no slash."""
    name = os.fsencode(argv[0])
    directories = [b""] if b"/" in name else [d or b"." for d in os.fsencode(environ.get("PATH", os.defpath)).split(b":")]
    places = tuple(os.path.join(directory, name) for directory in directories) if name else ()
    pairs = tuple(os.fsencode(f"{name}={value}") for name, value in environ.items() if name)
    return ExecRequest(places, tuple(map(os.fsencode, argv)), pairs)


def encode_exec_request(order: ExecRequest) -> bytes:
    """The order as one message."""
    body = b"".join(
        _COUNT.pack(len(texts)) + b"".join(_COUNT.pack(len(text)) + text for text in texts)
        for texts in (order.places, order.argv, order.environ)
    )
    return _SIZE.pack(len(body)) + body


def read_exec_request(descriptor: int) -> ExecRequest | None:
    """Wait for an order; None when whoever would give it has gone."""
    head = _read(descriptor, _SIZE.size)
    body = _read(descriptor, _SIZE.unpack(head)[0]) if head is not None else None
    if body is None:
        return None
    lists: list[tuple[bytes, ...]] = []
    at = 0
    for _ in range(3):
        texts = []
        (count,), at = _COUNT.unpack_from(body, at), at + _COUNT.size
        for _ in range(count):
            (size,), at = _COUNT.unpack_from(body, at), at + _COUNT.size
            texts.append(body[at : at + size])
            at += size
        lists.append(tuple(texts))
    return ExecRequest(*lists)


def encode_exec_failure(failure: ExecFailure) -> bytes:
    """The answer of a child that could not run what it was told to."""
    return _ANSWER.pack(failure.number, failure.is_there)


def read_exec_failure(descriptor: int) -> ExecFailure | None:
    """Wait for an answer; None when the command runs, since the pipe ends with that."""
    answer = _read(descriptor, _ANSWER.size)
    return ExecFailure(*_ANSWER.unpack(answer)) if answer is not None else None


def describe_exec_failure(name: str, failure: ExecFailure) -> CommandError:
    """A failure in a shell's words and with a shell's exit code."""
    shown = escape(name)
    if failure.number in ABSENT and failure.is_there:
        return CommandError(f"{shown}: the interpreter that it names does not exist", NOT_EXECUTABLE)
    if failure.number in ABSENT:
        words = describe_os_error(OSError(failure.number, os.strerror(failure.number))) if "/" in name else "command not found"
        return CommandError(f"{shown}: {words}", NOT_FOUND)
    return CommandError(f"{shown}: {describe_os_error(OSError(failure.number, os.strerror(failure.number)))}", NOT_EXECUTABLE)


def code_of_end(code: int) -> int:
    """The exit code of a shell whose command has ended so: its own, or 128 + N for signal N, which Python has as -N."""
    return code if code >= 0 else _SIGNALLED - code


def _read(descriptor: int, size: int) -> bytes | None:
    """Exactly so many bytes, or None if the pipe ends before."""
    pieces = []
    while size:
        piece = os.read(descriptor, size)
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
