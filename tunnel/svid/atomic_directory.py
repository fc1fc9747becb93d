"""A directory whose files are replaced together, laid out as Kubernetes' atomic writer does.

    DIR/..2026_11_22_08_51_03.123456789/svid.pem    the files of one update, in a directory of their own
    DIR/..data -> ..2026_11_22_08_51_03.123456789   replaced by rename: the one step in which an update appears
    DIR/svid.pem -> ..data/svid.pem                 the path that programs read

A replaced update directory stays until the next update, and for at least 10 seconds, so that a reader who has resolved `..data`
can still read it. If a step fails, the previous files stay.

The directory is open and locked. Before each update its path is compared with the descriptor: if they differ, because the
directory was renamed, mounted over or replaced, the path is opened and locked again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress

from tunnel.atomic_file import (
    NamedFile,
    PreparedFile,
    WrittenFile,
    output_errors,
    record_written,
    working_directory,
    write_new,
)
from tunnel.errors import OutputError, describe_os_error
from tunnel.lazy_dataclass import dataclass

CURRENT = "..data"
GRACE = 10.0  # seconds

_NEXT = "..data_tmp"  # a new link before it is renamed to CURRENT or to a file name
_UPDATE_NAME = re.compile(r"\.\.[0-9]{4}(_[0-9]{2}){5}\.[0-9]{9}")
_LOCK_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}  # the file system has no locks


@dataclass(frozen=True, slots=True)
class ReplaceResult:
    """The result of an update."""

    foreign: tuple[str, ...] = ()  # names whose file was not written by us
    fault: str = ""  # why the previous files were not at their paths any more

    def describe_foreign(self, directory: str) -> list[str]:
        """Return one notice for each foreign file that was replaced."""
        return [f"{directory}/{name}: replaced a file that was not written by tunnel" for name in self.foreign]


class AtomicDirectory:
    """An open directory, locked against other writers."""

    def __init__(
        self,
        path: str,
        group: int | None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open and lock the directory, create it if it does not exist; raises OutputError."""
        self.path = path
        self._base = working_directory()
        self._place = os.path.join(self._base, path)
        self._group = group
        self._wall = wall
        self._monotonic = monotonic
        self._replacing = threading.Lock()
        self._written: tuple[WrittenFile, ...] = ()  # by the last update
        self._replaced_at: dict[str, float] = {}  # by name of the update directory; monotonic clock
        self._descriptor = self._open()
        self._identity = _identity_of(os.fstat(self._descriptor))

    def close(self) -> None:
        """Unlock the directory."""
        os.close(self._descriptor)

    def replace(self, files: Sequence[NamedFile], combined: NamedFile | None = None) -> ReplaceResult:
        """Replace all our files by these; `combined`, whose name is a path, is replaced right after them.

        All are on the disk before one is visible, and all are at their paths at the end. Raises OutputError.
        """
        with self._replacing, output_errors(f"cannot replace the files in {self.path}"):
            fault = self._compare()
            if self._compare_directory():
                self._open_again()
            taken = self._replace(files, combined)
            if moved := self._compare():
                raise OutputError(f"cannot replace the files in {self.path}: {moved}")
        return ReplaceResult(taken, fault)

    def find_fault(self) -> str:
        """Return why the files of the last update are not at their paths; "" if they are. Thread-safe; reads no file."""
        if not self._compare():
            return ""
        with self._replacing:  # the first comparison may have seen half of an update
            return self._compare()

    def _open(self) -> int:
        with output_errors(f"cannot use directory {self.path}"):
            is_new = _make_directory(self._place)
            descriptor = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if is_new:
                    os.fchmod(descriptor, 0o755)
                _lock(self.path, descriptor)
            except (OSError, OutputError):
                os.close(descriptor)
                raise
        return descriptor

    def _open_again(self) -> None:
        """Open and lock the directory to which the path leads now, in place of the previous one."""
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor, self._identity = fresh, _identity_of(os.fstat(fresh))
        self._replaced_at.clear()

    def _compare(self) -> str:
        return self._compare_directory() or next(filter(None, (file.find_change() for file in self._written)), "")

    def _compare_directory(self) -> str:
        try:
            found = os.stat(self._place)
        except FileNotFoundError:
            return f"{self.path} is missing"
        except OSError as error:
            return f"cannot read {self.path}: {describe_os_error(error)}"
        if _identity_of(found) == self._identity:
            return ""
        return (
            f"{self.path} was replaced by another directory"
            if stat.S_ISDIR(found.st_mode)
            else f"{self.path} is not a directory"
        )

    def _replace(self, files: Sequence[NamedFile], combined: NamedFile | None) -> tuple[str, ...]:
        names = [file.name for file in files]
        with ExitStack() as undo:
            self._refuse_directories([*names, CURRENT])
            prepared = self._prepare(combined) if combined is not None else None
            if prepared is not None:
                undo.callback(prepared.discard)
            fresh = self._write_update(files, undo)
            self._link_missing(names, undo)
            previous = self._switch_to(fresh)
            undo.pop_all()  # the update is visible: no step after this one is undone
            self._written = ()
            foreign = self._replace_foreign(names)
            self._unlink_all_but(names)
            if prepared is not None:
                prepared.commit()
            self._written = self._record_written(names, prepared)
            self._remove_old(fresh, previous)
        return foreign

    def _prepare(self, combined: NamedFile) -> PreparedFile:
        prepared = PreparedFile(os.path.join(self._base, combined.name), combined, self._group)
        prepared.prepare()
        return prepared

    def _record_written(self, names: Collection[str], prepared: PreparedFile | None) -> tuple[WrittenFile, ...]:
        inside = (CURRENT, *names, *map(_link_target, names))
        files = [
            record_written(name, os.path.join(self._place, name), f"{self.path}/{name}", self._descriptor) for name in inside
        ]
        return (*files, prepared.record_written()) if prepared is not None else tuple(files)

    def _refuse_directories(self, names: Collection[str]) -> None:
        for name in names:
            if stat.S_ISDIR(self._mode_of(name)):
                raise OutputError(f"cannot replace {self.path}/{name}: is a directory")

    def _mode_of(self, name: str) -> int:
        try:
            return os.lstat(name, dir_fd=self._descriptor).st_mode
        except FileNotFoundError:
            return 0

    def _write_update(self, files: Sequence[NamedFile], undo: ExitStack) -> str:
        """Write the files to a new update directory and sync it to the disk; return its name."""
        name = self._make_update_directory()
        undo.callback(self._remove_update, name)
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._descriptor)
        try:
            for file in files:
                with output_errors(f"cannot write {file.name} in {self.path}"):
                    write_new(file, file.name, self._group, descriptor)
            os.fchmod(descriptor, 0o755)  # mkdir applies the umask
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return name

    def _make_update_directory(self) -> str:
        now = self._wall()
        while True:
            name = _update_name(now)
            try:
                os.mkdir(name, 0o700, dir_fd=self._descriptor)
            except FileExistsError:  # the clock was set back to the time of an earlier update
                now += 1e-6
            else:
                return name

    def _link_missing(self, names: Collection[str], undo: ExitStack) -> None:
        """Make links, dangling until the switch, for names that do not exist."""
        for name in names:
            if not self._mode_of(name):
                os.symlink(_link_target(name), name, dir_fd=self._descriptor)
                undo.callback(self._unlink, name)

    def _replace_foreign(self, names: Collection[str]) -> tuple[str, ...]:
        """Replace foreign files by our links; return their names."""
        foreign = tuple(name for name in names if self._target_of(name) != _link_target(name))
        for name in foreign:
            self._put_link(_link_target(name), name)
        return foreign

    def _switch_to(self, update: str) -> str:
        """Make the update visible; return the name of the previous update directory."""
        previous = self._target_of(CURRENT)
        self._put_link(update, CURRENT)
        os.fsync(self._descriptor)
        return previous

    def _put_link(self, target: str, name: str) -> None:
        self._unlink(_NEXT)
        os.symlink(target, _NEXT, dir_fd=self._descriptor)
        os.replace(_NEXT, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def _unlink_all_but(self, names: Collection[str]) -> None:
        """Remove our links to files that this update does not have."""
        for name in os.listdir(self._descriptor):
            if name not in names and self._target_of(name) == _link_target(name):
                self._unlink(name)

    def _remove_old(self, current: str, previous: str) -> None:
        """Remove update directories replaced GRACE ago by the monotonic clock; those of earlier processes by time stamp."""
        now, wall = self._monotonic(), self._wall()
        old = [name for name in os.listdir(self._descriptor) if _UPDATE_NAME.fullmatch(name) and name != current]
        for name in old:
            with suppress(OSError):
                if name == previous:
                    self._replaced_at[name] = now
                    os.utime(name, (wall, wall), dir_fd=self._descriptor)  # for a later process
                elif self._age_of(name, now, wall) >= GRACE:
                    self._remove_update(name)
        self._replaced_at = {name: when for name, when in self._replaced_at.items() if name in old}

    def _age_of(self, name: str, now: float, wall: float) -> float:
        if name in self._replaced_at:
            return now - self._replaced_at[name]
        return abs(wall - os.lstat(name, dir_fd=self._descriptor).st_mtime)

    def _remove_update(self, name: str) -> None:
        shutil.rmtree(name, ignore_errors=True, dir_fd=self._descriptor)

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def _target_of(self, name: str) -> str:
        """Return the target of a link; "" if there is no link of that name."""
        try:
            return os.readlink(name, dir_fd=self._descriptor)
        except OSError:
            return ""


def _make_directory(path: str) -> bool:
    try:
        os.makedirs(path)
    except FileExistsError:
        return False
    return True


def _identity_of(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _lock(path: str, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(
            f"directory {path} is locked by another process: expected one writer for each --out directory"
        ) from None
    except OSError as error:
        if error.errno not in _LOCK_UNSUPPORTED:
            raise


def _update_name(now: float) -> str:
    whole = int(now)
    return f"..{time.strftime('%Y_%m_%d_%H_%M_%S', time.gmtime(whole))}.{int((now - whole) * 1e9):09d}"


def _link_target(name: str) -> str:
    return f"{CURRENT}/{name}"
