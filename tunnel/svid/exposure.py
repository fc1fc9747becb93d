"""Finds directories in which another user could replace the files that are written there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

_ROOT = 0


def list_exposures(*directories: str) -> tuple[str, ...]:
    """Return a warning for each directory whose files a user other than root and ours could replace."""
    places = dict.fromkeys(os.path.realpath(directory or ".") for directory in directories)
    return tuple(
        f"{place}: another user can replace the files here: {why}; expected a directory that"
        " only this user and root can write to, and its parents likewise"
        for place in places
        if (why := find_exposure(place))
    )


def find_exposure(place: str) -> str:
    """Return why a user other than root and ours may replace files in a directory, or the path to it; "" if none may."""
    for directory in _ancestors(place):
        try:
            found = os.stat(directory)
        except OSError:  # the writer of the files reports it
            return ""
        if why := _explain(found, is_last=directory == place, is_mount=os.path.ismount(directory)):
            return f"{directory} {why}"
    return ""


def _ancestors(place: str) -> Iterator[str]:
    """Yield the directory, then each one above it."""
    yield place
    while (parent := os.path.dirname(place)) != place:
        place = parent
        yield place


def _explain(found: os.stat_result, *, is_last: bool, is_mount: bool) -> str:
    if found.st_uid not in (_ROOT, os.geteuid()):
        return f"belongs to user {found.st_uid}"
    if is_mount and found.st_uid == _ROOT and not found.st_mode & stat.S_ISVTX:
        return ""  # a container volume such as a Kubernetes emptyDir has mode 0777, and only users of the container
    if found.st_mode & stat.S_ISVTX and not is_last:
        return ""  # sticky bit: only the owner renames an entry
    if found.st_mode & stat.S_IWOTH:
        return f"is writable by every user (mode {stat.S_IMODE(found.st_mode):04o})"
    if found.st_mode & stat.S_IWGRP and found.st_gid not in (_ROOT, os.getegid()):
        return f"is writable by group {found.st_gid} (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""
