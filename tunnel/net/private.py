"""A directory for sockets, into which nobody else can come and in whose place nobody else can put another.

Knows owners and modes of directories and where temporary files go; must not know what the sockets are for.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tunnel.errors import ConfigError, describe_os_error
from tunnel.net.owner import overflow_user

_ROOT = 0


@contextmanager
def private_directory(environ: Mapping[str, str]) -> Iterator[Path]:
    """A new directory of this user alone, gone at the end with all that is in it, as far as it can be; raises ConfigError.

    In `XDG_RUNTIME_DIR` if that is ours, else where temporary files go.
    """
    try:
        directory = Path(tempfile.mkdtemp(prefix="tunnel-", dir=_find_place(environ)))
    except OSError as error:
        raise ConfigError(f"cannot make a directory for a socket: {describe_os_error(error)}") from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _find_place(environ: Mapping[str, str]) -> Path:
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _is_ours(runtime):
        return Path(runtime).resolve()
    place = Path(tempfile.gettempdir()).resolve()  # with no link in it that somebody could turn
    weak = _weak_spot(place)
    if weak is not None:
        shown = str(weak) if weak == place else f"{weak}, above {place},"
        raise ConfigError(f"other users may change {shown}: name another place for sockets, TMPDIR=/tmp for instance")
    return place


def _is_ours(path: str) -> bool:
    """As the XDG Base Directory Specification wants it; it may be that of whoever has become us (sudo -E)."""
    try:
        is_owner = os.stat(path).st_uid == os.geteuid()
        return is_owner and os.access(path, os.W_OK | os.X_OK) and _weak_spot(Path(path).resolve()) is None
    except OSError:
        return False


def _weak_spot(place: Path) -> Path | None:
    """The first directory, from the root on, in which another user could put something else in the place of what is there."""
    trusted = {_ROOT, os.geteuid(), overflow_user()}  # the last is most often the machine's root, seen from a container
    for directory in (*reversed(place.parents), place):
        found = directory.stat()
        others = found.st_mode & (stat.S_IWOTH if found.st_gid == _ROOT else stat.S_IWOTH | stat.S_IWGRP)
        if found.st_uid not in trusted or (others and not found.st_mode & stat.S_ISVTX):
            return directory
    return None
