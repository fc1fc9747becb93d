"""Requests a reload when files of the configuration change: the attributes of each file are compared once per second."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice

import trio

_INTERVAL = 1.0  # seconds between comparisons, and for which the files must stay the same before a reload

_MAX_FILES = 10_000  # below one directory, as many as a policy may have

Signature = tuple[tuple[str, tuple[int, ...]], ...]  # of one path: the file, or a directory and the files below it


def sign_files(paths: Iterable[str]) -> dict[str, Signature]:
    """Return what distinguishes the present content of each path; one that does not exist has an empty signature."""
    return {path: tuple(_sign(path)) for path in set(paths)}


async def watch_files(
    list_files: Callable[[], Iterable[str]], on_change: Callable[[], None], known: dict[str, Signature]
) -> None:
    """Call `on_change` when files have changed and are stable again, until cancelled.

    `known` are the signatures before the files were read; the caller adds those of files that it reads for the first time.
    A path that is listed without one is no change.
    """
    seen = dict(known)
    while True:
        await trio.sleep(_INTERVAL)
        before = seen
        seen = await trio.to_thread.run_sync(lambda: sign_files(list_files()), abandon_on_cancel=True)
        if seen != before:  # a file may be half written
            continue
        is_changed = any(path in known and known[path] != signature for path, signature in seen.items())
        known.update(seen)
        if is_changed:
            on_change()


def _sign(path: str) -> Iterable[tuple[str, tuple[int, ...]]]:
    for file in (path, *sorted(islice(_files_below(path), _MAX_FILES))):
        with suppress(OSError):
            found = os.stat(file)  # of the target of a symbolic link, which Kubernetes replaces
            yield file, (found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid, found.st_gid)


def _files_below(path: str) -> Iterator[str]:
    """Yield the files below a directory, without hidden directories; nothing for a file."""
    for place, directories, files in os.walk(path):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        yield from (os.path.join(place, name) for name in files)
