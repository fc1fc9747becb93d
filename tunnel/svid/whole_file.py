"""A file whose content is always whole.

Knows how a file is replaced in one step, and with which permissions it begins; must not know what it says. The new file has
its group and its mode before its first byte; readers see the old content or the new one.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from tunnel.errors import OutputError, describe_os_error
from tunnel.svid.atomic_directory import NamedFile, write_new
from tunnel.svid.file_state import WrittenFile, note_written, working_directory


class WholeFile:
    """One file that is written again and again, also after the working directory was moved or replaced."""

    def __init__(self, path: str, mode: int, group: int | None) -> None:
        self.path = path
        self._place = os.path.join(working_directory(), path)
        self._mode = mode
        self._group = group
        self._written: WrittenFile | None = None

    def write(self, text: str) -> None:
        """Let the file hold this text and nothing else; raises OutputError."""
        write_whole(self._place, text, self._mode, self._group, self.path)
        self._written = self._note()

    def find_fault(self) -> str:
        """Why the file that was written last is not at its path; "" when it is."""
        return self._written.find_change() if self._written is not None else ""

    def _note(self) -> WrittenFile:
        try:
            return note_written(self._place, self._place, self.path)
        except OSError as error:  # another process has removed it at once
            raise OutputError(f"cannot write {self.path!a}: {describe_os_error(error)}") from error


def write_whole(path: str, text: str, mode: int, group: int | None, shown: str = "") -> None:
    """Let the file hold this text and nothing else; raises OutputError, and then what was there is there still.

    `shown` is the name for an error, where that is another than `path`.
    """
    folder, name = os.path.split(path)
    fresh = os.path.join(folder, f".{name}.new")
    try:
        if os.path.isdir(path):
            raise OutputError(f"cannot write {shown or path!a}: it is a folder")
        _discard(fresh)  # of a run that was killed
        with ExitStack() as undo:
            undo.callback(_discard, fresh)
            write_new(NamedFile(name, text.encode(), mode), fresh, group)
            os.replace(fresh, path)
            undo.pop_all()
        _sync_folder(folder or ".")
    except OSError as error:
        raise OutputError(f"cannot write {shown or path!a}: {describe_os_error(error)}") from error


def _discard(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
