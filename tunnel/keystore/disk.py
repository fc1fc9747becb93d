"""Files, read whole and within a limit.

Knows what goes wrong with files and how an error names the file; must not know what is in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tunnel.errors import IdentityError, IdentityFault, describe_os_error

MAX_FILE_BYTES = 50 * 1024 * 1024


def read_file(path: str) -> bytes:
    """Everything in a file of at most MAX_FILE_BYTES, even a pipe; raises IdentityError that names the file."""
    try:
        with open(path, "rb") as file:
            blob = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        reason = describe_os_error(error) if isinstance(error, OSError) else str(error)
        raise IdentityError(IdentityFault.FILE, f"cannot read {path!a}: {reason}") from error
    if len(blob) > MAX_FILE_BYTES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"{path!a} is over {MAX_FILE_BYTES} bytes, more than is read")
    return blob


@contextmanager
def naming(*paths: str) -> Iterator[None]:
    """Let each IdentityError from inside begin with the files that it is about."""
    try:
        yield
    except IdentityError as error:
        names = " and ".join(dict.fromkeys(f"{path!a}" for path in paths))
        raise IdentityError(error.reason, f"{names}: {error}") from error
