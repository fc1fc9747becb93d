"""The messages between a launcher and its waiting child: the command to execute, and why that failed.

No pickle: a child between fork and exec must do as little as possible.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from tunnel.errors import CommandError, describe_os_error
from tunnel.lazy_dataclass import dataclass
from tunnel.log import escape

NOT_EXECUTABLE: Final = 126  # POSIX.1-2024, Shell, 2.8.2
NOT_FOUND: Final = 127
_SIGNALLED: Final = 128
ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)

_SIZE = struct.Struct("=Q")  # of the rest of the message
_COUNT = struct.Struct("=I")
_FAILURE = struct.Struct("=i?")


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """The command to execute: the first of `paths` that can be run; everything as the kernel takes it."""

    paths: tuple[bytes, ...]
    argv: tuple[bytes, ...]
    environ: tuple[bytes, ...]  # NAME=VALUE


@dataclass(frozen=True, slots=True)
class ExecFailure:
    """Why no path could be executed: the errno, and whether one exists."""

    number: int
    exists: bool


def build_exec_request(argv: Sequence[str], environ: Mapping[str, str]) -> ExecRequest:
    """Return the request to execute a command; a name without a slash is searched in PATH, as a shell does."""
    name = os.fsencode(argv[0])
    directories = [b""] if b"/" in name else [d or b"." for d in os.fsencode(environ.get("PATH", os.defpath)).split(b":")]
    paths = tuple(os.path.join(directory, name) for directory in directories) if name else ()
    pairs = tuple(os.fsencode(f"{name}={value}") for name, value in environ.items() if name)
    return ExecRequest(paths, tuple(map(os.fsencode, argv)), pairs)


def encode_exec_request(request: ExecRequest) -> bytes:
    """Return the request as one message."""
    body = b"".join(
        _COUNT.pack(len(texts)) + b"".join(_COUNT.pack(len(text)) + text for text in texts)
        for texts in (request.paths, request.argv, request.environ)
    )
    return _SIZE.pack(len(body)) + body


def read_exec_request(descriptor: int) -> ExecRequest | None:
    """Wait for a request; return None if the parent closed the pipe."""
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
    """Return the failure as one message."""
    return _FAILURE.pack(failure.number, failure.exists)


def read_exec_failure(descriptor: int) -> ExecFailure | None:
    """Wait for a failure; return None if the command runs: exec closes the pipe."""
    message = _read(descriptor, _FAILURE.size)
    return ExecFailure(*_FAILURE.unpack(message)) if message is not None else None


def describe_exec_failure(name: str, failure: ExecFailure) -> CommandError:
    """Return the error with the text and the exit code of a shell."""
    shown = escape(name)
    if failure.number in ABSENT and failure.exists:
        return CommandError(f"{shown}: its interpreter does not exist", NOT_EXECUTABLE)
    if failure.number in ABSENT:
        reason = describe_os_error(OSError(failure.number, os.strerror(failure.number))) if "/" in name else "command not found"
        return CommandError(f"{shown}: {reason}", NOT_FOUND)
    return CommandError(f"{shown}: {describe_os_error(OSError(failure.number, os.strerror(failure.number)))}", NOT_EXECUTABLE)


def shell_exit_code(code: int) -> int:
    """Return the exit code as a shell reports it: 128 + N for signal N, for which Python has -N."""
    return code if code >= 0 else _SIGNALLED - code


def _read(descriptor: int, size: int) -> bytes | None:
    """Read exactly `size` bytes; return None at EOF before that."""
    pieces = []
    while size:
        piece = os.read(descriptor, size)
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
