"""A private directory for sockets, which no other user can enter or replace."""

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
    """Create a directory with mode 0700 and remove it with its content at exit; raises ConfigError.

    It is created in `XDG_RUNTIME_DIR` if that belongs to us, else in the directory for temporary files.
    """
    try:
        directory = Path(tempfile.mkdtemp(prefix="tunnel-", dir=_parent_directory(environ)))
    except OSError as error:
        raise ConfigError(f"cannot create a directory for a socket: {describe_os_error(error)}") from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _parent_directory(environ: Mapping[str, str]) -> Path:
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _is_ours(runtime):
        return Path(runtime).resolve()
    parent = Path(tempfile.gettempdir()).resolve()  # resolved: another user could change a symbolic link
    unsafe = _writable_by_others(parent)
    if unsafe is not None:
        shown = str(unsafe) if unsafe == parent else f"{unsafe}, above {parent},"
        raise ConfigError(f"unsafe directory for sockets: other users may change {shown}; expected TMPDIR=/tmp or similar")
    return parent


def _is_ours(path: str) -> bool:
    """Check the rules of the XDG Base Directory Specification; with `sudo -E` the directory belongs to another user."""
    try:
        is_owner = os.stat(path).st_uid == os.geteuid()
        return is_owner and os.access(path, os.W_OK | os.X_OK) and _writable_by_others(Path(path).resolve()) is None
    except OSError:
        return False


def _writable_by_others(parent: Path) -> Path | None:
    """Return the first directory, from the root on, in which another user could replace an entry; None if there is none."""
    trusted = {_ROOT, os.geteuid(), overflow_user()}  # the overflow user is usually root of the host, seen from a container
    for directory in (*reversed(parent.parents), parent):
        found = directory.stat()
        others = found.st_mode & (stat.S_IWOTH if found.st_gid == _ROOT else stat.S_IWOTH | stat.S_IWGRP)
        if found.st_uid not in trusted or (others and not found.st_mode & stat.S_ISVTX):
            return directory
    return None
