"""Which file was written at a path, to find out later whether the same one is still there."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tunnel.errors import describe_os_error

_State = tuple[int, int, int, int]  # device, inode, size and time of modification: a file that was written again differs


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file or link at a path, as it was right after it was written."""

    path: str
    shown: str  # the path as the user knows it
    state: _State

    def find_change(self) -> str:
        """Why the path does not lead to this file; "" when it does."""
        try:
            now = _state_of(os.lstat(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return f"{self.shown} is gone"
        except OSError as error:
            return f"cannot read {self.shown}: {describe_os_error(error)}"
        if now == self.state:
            return ""
        return f"{self.shown} was {'replaced' if now[:2] != self.state[:2] else 'changed'} by another process"


def note_written(name: str, path: str, shown: str, folder: int | None = None) -> WrittenFile:
    """What stands at `name`, in the open directory `folder` if one is given, and belongs at `path`; raises OSError."""
    return WrittenFile(path, shown, _state_of(os.lstat(name, dir_fd=folder)))


def working_directory() -> str:
    """The directory that relative paths begin with, by its path at this moment; "" when it was deleted.

    A path joined to it means the same place when the directory is moved or replaced.
    """
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _state_of(found: os.stat_result) -> _State:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
