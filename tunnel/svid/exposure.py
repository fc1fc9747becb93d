"""Directories in which another user could replace the files that are written there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

_ROOT = 0


def list_exposures(*folders: str) -> tuple[str, ...]:
    """A warning for each of these directories whose files a user other than root and ours could replace."""
    places = dict.fromkeys(os.path.realpath(folder or ".") for folder in folders)
    return tuple(
        f"{place}: another user can replace the files here: {why}; expected a directory that"
        " only this user and root can write to, and its parents likewise"
        for place in places
        if (why := find_exposure(place))
    )


def find_exposure(place: str) -> str:
    """Who besides root and our user may rename or remove entries on the way to files in a directory; "" if nobody."""
    for folder in _ancestors(place):
        try:
            found = os.stat(folder)
        except OSError:  # whoever writes there says why
            return ""
        if why := _judge(found, is_last=folder == place, is_mount=os.path.ismount(folder)):
            return f"{folder} {why}"
    return ""


def _ancestors(place: str) -> Iterator[str]:
    """The directory itself, then each one above it."""
    yield place
    while (parent := os.path.dirname(place)) != place:
        place = parent
        yield place


def _judge(found: os.stat_result, *, is_last: bool, is_mount: bool) -> str:
    if found.st_uid not in (_ROOT, os.geteuid()):
        return f"belongs to user {found.st_uid}"
    if is_mount and found.st_uid == _ROOT and not found.st_mode & stat.S_ISVTX:
        return ""  # a volume of a container, an emptyDir of Kubernetes, has mode 0777 and the container's users only
    if found.st_mode & stat.S_ISVTX and not is_last:
        return ""  # nobody renames the entries of others (sticky bit)
    if found.st_mode & stat.S_IWOTH:
        return f"is writable by every user (mode {stat.S_IMODE(found.st_mode):04o})"
    if found.st_mode & stat.S_IWGRP and found.st_gid not in (_ROOT, os.getegid()):
        return f"is writable by group {found.st_gid} (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""
