"""A folder whose files change together, as Kubernetes' atomic writer keeps them.

Knows names, modes, links and how each step may fail; must not know what the files say. The layout:

    DIR/..2026_11_22_08_51_03.123456789/svid.pem    the files of one update, in a folder of their own
    DIR/..data -> ..2026_11_22_08_51_03.123456789   replaced by rename: the one step in which an update appears
    DIR/svid.pem -> ..data/svid.pem                 where programs look

A folder that has been replaced stays until the next update, and for 10 seconds at least, so that a reader who has resolved
`..data` still finds what it led to. Whatever holds up or breaks a step leaves the files as they were.

The directory is open and locked. Before each update its path is compared with the descriptor: where they differ, because the
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
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from tunnel.errors import OutputError, describe_os_error
from tunnel.svid.file_state import WrittenFile, note_written, working_directory

CURRENT = "..data"
GRACE = 10.0  # seconds

_NEXT = "..data_tmp"  # the link that is about to become CURRENT, or one of the others
_FOLDER = re.compile(r"\.\.[0-9]{4}(_[0-9]{2}){5}\.[0-9]{9}")
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}  # of a file system that has none


@dataclass(frozen=True, slots=True)
class NamedFile:
    """One file that is to be there."""

    name: str
    content: bytes = field(repr=False)
    mode: int


@dataclass(frozen=True, slots=True)
class Replaced:
    """How an update was written."""

    taken: tuple[str, ...] = ()  # names at which something stood that was not ours
    fault: str = ""  # why the files of the update before were not at their paths any more


class AtomicDirectory:
    """An open folder, which no other process keeps meanwhile."""

    def __init__(
        self,
        path: str,
        group: int | None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens and locks the folder; raises OutputError."""
        self.path = path
        self._base = working_directory()
        self._place = os.path.join(self._base, path)
        self._group = group
        self._wall = wall
        self._monotonic = monotonic
        self._replacing = threading.Lock()
        self._written: tuple[WrittenFile, ...] = ()  # by the last update
        self._replaced_at: dict[str, float] = {}  # folders of updates that were replaced, by the monotonic clock
        self._descriptor = self._open()
        self._identity = _identity_of(os.fstat(self._descriptor))

    def close(self) -> None:
        """Let another process keep it."""
        os.close(self._descriptor)

    def replace(self, files: Sequence[NamedFile], combined: NamedFile | None = None) -> Replaced:
        """Let these files be there and no others of ours; `combined` has a path for a name, and is replaced right after.

        Everything is on the disk before anything is seen, and is seen at its path at the end. Raises OutputError.
        """
        with self._replacing, _explained(f"cannot replace the files in {self.path}"):
            fault = self._compare()
            if self._compare_folder():
                self._open_again()
            taken = self._replace(files, combined)
            if moved := self._compare():
                raise OutputError(f"cannot replace the files in {self.path}: {moved}")
        return Replaced(taken, fault)

    def find_fault(self) -> str:
        """Why the files of the last update are not at their paths; "" when they are. For any thread; reads no file."""
        if not self._compare():
            return ""
        with self._replacing:  # it may have been half of an update that was seen
            return self._compare()

    def _open(self) -> int:
        with _explained(f"cannot use {self.path} as a folder"):
            is_new = _make_folder(self._place)
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
        """Leave the directory that the path has led to, for the one to which it leads now."""
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor, self._identity = fresh, _identity_of(os.fstat(fresh))
        self._replaced_at.clear()

    def _compare(self) -> str:
        return self._compare_folder() or next(filter(None, (file.find_change() for file in self._written)), "")

    def _compare_folder(self) -> str:
        try:
            found = os.stat(self._place)
        except FileNotFoundError:
            return f"{self.path} is gone"
        except OSError as error:
            return f"cannot read {self.path}: {describe_os_error(error)}"
        if _identity_of(found) == self._identity:
            return ""
        return f"{self.path} is another directory now" if stat.S_ISDIR(found.st_mode) else f"{self.path} is not a directory"

    def _replace(self, files: Sequence[NamedFile], combined: NamedFile | None) -> tuple[str, ...]:
        names = [file.name for file in files]
        with ExitStack() as undo:
            self._refuse_folders([*names, CURRENT])
            beside = _Beside(combined, self._base, self._group) if combined is not None else None
            if beside is not None:
                undo.callback(beside.discard)
                beside.prepare()
            fresh = self._write_folder(files, undo)
            self._link_missing(names, undo)
            former = self._switch_to(fresh)
            undo.pop_all()  # from here on there is no way back, and none is needed
            self._written = ()
            taken = self._link_others(names)
            self._unlink_all_but(names)
            if beside is not None:
                beside.commit()
            self._written = self._note_written(names, beside)
            self._remove_old(fresh, former)
        return taken

    def _note_written(self, names: Collection[str], beside: _Beside | None) -> tuple[WrittenFile, ...]:
        inside = (CURRENT, *names, *map(_through, names))
        files = [
            note_written(name, os.path.join(self._place, name), f"{self.path}/{name}", self._descriptor) for name in inside
        ]
        return (*files, beside.note_written()) if beside is not None else tuple(files)

    def _refuse_folders(self, names: Collection[str]) -> None:
        for name in names:
            if stat.S_ISDIR(self._mode_of(name)):
                raise OutputError(f"cannot replace {self.path}/{name}: it is a folder")

    def _mode_of(self, name: str) -> int:
        try:
            return os.lstat(name, dir_fd=self._descriptor).st_mode
        except FileNotFoundError:
            return 0

    def _write_folder(self, files: Sequence[NamedFile], undo: ExitStack) -> str:
        """A folder with the files, complete and on the disk; its name."""
        name = self._make_update_folder()
        undo.callback(self._remove_folder, name)
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._descriptor)
        try:
            for file in files:
                with _explained(f"cannot write {file.name} in {self.path}"):
                    write_new(file, file.name, self._group, descriptor)
            os.fchmod(descriptor, 0o755)  # not mkdir's business: the umask would have a say in it
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return name

    def _make_update_folder(self) -> str:
        now = self._wall()
        while True:
            name = _folder_name(now)
            try:
                os.mkdir(name, 0o700, dir_fd=self._descriptor)
            except FileExistsError:  # the clock was set back to the time of an earlier update
                now += 1e-6
            else:
                return name

    def _link_missing(self, names: Collection[str], undo: ExitStack) -> None:
        """Links that lead nowhere until the switch, for names at which nothing stands."""
        for name in names:
            if not self._mode_of(name):
                os.symlink(_through(name), name, dir_fd=self._descriptor)
                undo.callback(self._unlink, name)

    def _link_others(self, names: Collection[str]) -> tuple[str, ...]:
        """Links in the place of whatever else stands at a name; where that was so."""
        taken = tuple(name for name in names if self._target_of(name) != _through(name))
        for name in taken:
            self._put_link(_through(name), name)
        return taken

    def _switch_to(self, folder: str) -> str:
        """Let the update appear; the folder that was the current one."""
        former = self._target_of(CURRENT)
        self._put_link(folder, CURRENT)
        os.fsync(self._descriptor)
        return former

    def _put_link(self, target: str, name: str) -> None:
        self._unlink(_NEXT)
        os.symlink(target, _NEXT, dir_fd=self._descriptor)
        os.replace(_NEXT, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def _unlink_all_but(self, names: Collection[str]) -> None:
        """Remove the links of files that an earlier update had."""
        for name in os.listdir(self._descriptor):
            if name not in names and self._target_of(name) == _through(name):
                self._unlink(name)

    def _remove_old(self, current: str, former: str) -> None:
        """Remove what was replaced GRACE ago by a clock that nobody sets; of earlier processes only the time stamp is known."""
        now, wall = self._monotonic(), self._wall()
        old = [name for name in os.listdir(self._descriptor) if _FOLDER.fullmatch(name) and name != current]
        for name in old:
            with suppress(OSError):
                if name == former:
                    self._replaced_at[name] = now
                    os.utime(name, (wall, wall), dir_fd=self._descriptor)  # for the process that comes after us
                elif self._age_of(name, now, wall) >= GRACE:
                    self._remove_folder(name)
        self._replaced_at = {name: when for name, when in self._replaced_at.items() if name in old}

    def _age_of(self, name: str, now: float, wall: float) -> float:
        if name in self._replaced_at:
            return now - self._replaced_at[name]
        return abs(wall - os.lstat(name, dir_fd=self._descriptor).st_mtime)

    def _remove_folder(self, name: str) -> None:
        shutil.rmtree(name, ignore_errors=True, dir_fd=self._descriptor)

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def _target_of(self, name: str) -> str:
        """Where a link leads; "" when there is none of that name."""
        try:
            return os.readlink(name, dir_fd=self._descriptor)
        except OSError:
            return ""


class _Beside:
    """A file somewhere else, first under a name of its own."""

    def __init__(self, file: NamedFile, base: str, group: int | None) -> None:
        self._path = os.path.join(base, file.name)
        folder, name = os.path.split(self._path)
        self._file = file
        self._group = group
        self._folder = folder or "."
        self._prepared = os.path.join(folder, f".{name}.new")

    def prepare(self) -> None:
        """Have it complete on the disk, where nobody looks."""
        if os.path.isdir(self._path):
            raise OutputError(f"cannot replace {self._file.name}: it is a folder")
        self.discard()
        with _explained(f"cannot write {self._file.name}"):
            write_new(self._file, self._prepared, self._group)

    def commit(self) -> None:
        """Let it appear."""
        try:
            with _explained(f"cannot replace {self._file.name}"):
                os.replace(self._prepared, self._path)
        except OutputError:
            self.discard()
            raise
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def note_written(self) -> WrittenFile:
        """What stands there now."""
        return note_written(self._path, self._path, self._file.name)

    def discard(self) -> None:
        """Leave nothing of it."""
        with suppress(OSError):
            os.unlink(self._prepared)


def open_atomic_directory(
    path: str,
    group: int | None,
    wall: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> AtomicDirectory:
    """The folder, made if need be, as its only keeper until it is closed; raises OutputError."""
    return AtomicDirectory(path, group, wall, monotonic)


def write_new(file: NamedFile, path: str, group: int | None, folder: int | None = None) -> None:
    """Make a file that was not there, and have it on the disk; it is empty until its group and mode are right."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        if group is not None:
            _give(descriptor, group)
        os.fchmod(descriptor, file.mode)
        rest = memoryview(file.content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give(descriptor: int, group: int) -> None:
    try:
        os.fchown(descriptor, -1, group)
    except PermissionError:
        raise OutputError(f"cannot give files to group {group}: only root and members of the group may") from None


def _make_folder(path: str) -> bool:
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
        raise OutputError(f"{path} is kept by another process: a folder has one writer, say another --out") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _folder_name(now: float) -> str:
    whole = int(now)
    return f"..{time.strftime('%Y_%m_%d_%H_%M_%S', time.gmtime(whole))}.{int((now - whole) * 1e9):09d}"


def _through(name: str) -> str:
    return f"{CURRENT}/{name}"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{what}: {describe_os_error(error)}") from error
