"""A file whose content is always whole.

Knows how a file is replaced in one step, and with which permissions it begins; must not know what it says. The new file has
its group and its mode before its first byte; readers see the old content or the new one.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from tunnel.errors import OutputError, words_of
from tunnel.svid.folder import NamedFile, write_new


def write_whole(path: str, text: str, mode: int, group: int | None) -> None:
    """Let the file hold this text and nothing else; raises OutputError, and then what was there is there still."""
    folder, name = os.path.split(path)
    fresh = os.path.join(folder, f".{name}.new")
    try:
        if os.path.isdir(path):
            raise OutputError(f"cannot write {path!a}: it is a folder")
        _discard(fresh)  # of a run that was killed
        with ExitStack() as undo:
            undo.callback(_discard, fresh)
            write_new(NamedFile(name, text.encode(), mode), fresh, group)
            os.replace(fresh, path)
            undo.pop_all()
        _sync_folder(folder or ".")
    except OSError as error:
        raise OutputError(f"cannot write {path!a}: {words_of(error)}") from error


def _discard(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
