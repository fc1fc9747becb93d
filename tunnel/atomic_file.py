"""One file that is replaced atomically, and detection of later changes to it by other processes.

A new file has its group and its mode before its first byte. Readers see the old content or the new content.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tunnel.errors import OutputError, describe_os_error
from tunnel.lazy_dataclass import dataclass, field

_FileStat = tuple[int, int, int, int]  # device, inode, size and time of modification: a rewritten file differs


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file to write."""

    name: str
    content: bytes = field(repr=False)
    mode: int


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file or link at a path, as it was right after it was written."""

    path: str
    shown: str  # the path as the user knows it
    stat: _FileStat

    def find_change(self) -> str:
        """Return why the path does not lead to this file; "" if it does."""
        try:
            now = _read_stat(os.lstat(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return f"{self.shown} is missing"
        except OSError as error:
            return f"cannot read {self.shown}: {describe_os_error(error)}"
        if now == self.stat:
            return ""
        return f"{self.shown} was {'replaced' if now[:2] != self.stat[:2] else 'changed'} by another process"


def record_written(name: str, path: str, shown: str, directory: int | None = None) -> WrittenFile:
    """Return the state of the file `name`, in the open `directory` if given, which belongs at `path`; raises OSError."""
    return WrittenFile(path, shown, _read_stat(os.lstat(name, dir_fd=directory)))


def _read_stat(found: os.stat_result) -> _FileStat:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def working_directory() -> str:
    """Return the current path of the working directory; "" if it was deleted.

    A path joined to it stays the same when the directory is moved or replaced.
    """
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


class AtomicFile:
    """One file that is written again and again, also after the working directory was moved or replaced."""

    def __init__(self, path: str, mode: int, group: int | None) -> None:
        self.path = path
        self._place = os.path.join(working_directory(), path)
        self._mode = mode
        self._group = group
        self._written: WrittenFile | None = None

    def write(self, text: str) -> None:
        """Replace the content by this text; raises OutputError, and then the previous file stays."""
        shown = ascii(self.path)
        prepared = PreparedFile(self._place, NamedFile(shown, text.encode(), self._mode), self._group)
        prepared.prepare()
        prepared.commit()
        with output_errors(f"cannot write {shown}"):  # another process may have removed it at once
            self._written = record_written(self._place, self._place, self.path)

    def find_fault(self) -> str:
        """Return why the file that was written last is not at its path; "" if it is."""
        return self._written.find_change() if self._written is not None else ""


class PreparedFile:
    """A new file that is complete on the disk under a temporary name until it is committed."""

    def __init__(self, path: str, file: NamedFile, group: int | None) -> None:
        """Write to `path`; the name of `file` is the one in errors."""
        self._path = path
        self._file = file
        self._group = group
        self._directory, name = os.path.split(path)
        self._prepared = os.path.join(self._directory, f".{name}.new")

    def prepare(self) -> None:
        """Write the file under the temporary name."""
        if os.path.isdir(self._path):
            raise OutputError(f"cannot write {self._file.name}: is a directory")
        with output_errors(f"cannot write {self._file.name}"):
            with suppress(FileNotFoundError):
                os.unlink(self._prepared)  # of a run that was killed
            try:
                write_new(self._file, self._prepared, self._group)
            except (OSError, OutputError):
                self.discard()
                raise

    def commit(self) -> None:
        """Replace the file at the path."""
        with output_errors(f"cannot write {self._file.name}"):
            try:
                os.replace(self._prepared, self._path)
            except OSError:
                self.discard()
                raise
            _sync_directory(self._directory or ".")

    def record_written(self) -> WrittenFile:
        """Return the state of the committed file."""
        return record_written(self._path, self._path, self._file.name)

    def discard(self) -> None:
        """Remove the temporary file."""
        with suppress(OSError):
            os.unlink(self._prepared)


def replace_file(path: str, content: bytes, mode: int) -> None:
    """Replace the file at the path, or create it; raises OSError, and then the previous file stays."""
    directory = os.path.dirname(path) or "."
    prepared = os.path.join(directory, f".{secrets.token_hex(8)}.tmp")  # short: the name may have the maximum length already
    try:
        write_new(NamedFile(path, content, mode), prepared, None)
        os.replace(prepared, path)
        _sync_directory(directory)
    except OSError:
        with suppress(OSError):
            os.unlink(prepared)
        raise


def write_new(file: NamedFile, path: str, group: int | None, directory: int | None = None) -> None:
    """Create a file and sync it to the disk; it is empty until its group and mode are set."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    try:
        if group is not None:
            _set_group(descriptor, group)
        os.fchmod(descriptor, file.mode)
        rest = memoryview(file.content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_group(descriptor: int, group: int) -> None:
    try:
        os.fchown(descriptor, -1, group)
    except PermissionError:
        raise OutputError(f"cannot set the group of files to {group}: only root and members of the group may") from None


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def output_errors(action: str) -> Iterator[None]:
    """Turn OSError into OutputError: `action`, then the reason."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{action}: {describe_os_error(error)}") from error
