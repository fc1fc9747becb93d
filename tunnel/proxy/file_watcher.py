"""Requests a reload when files of the configuration change: the modification times are compared once per second."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress

import trio

_INTERVAL = 1.0  # seconds between comparisons, and for which the files must stay the same before a reload

Signature = tuple[tuple[str, int, int, int], ...]


async def watch_files(list_files: Callable[[], Iterable[str]], on_change: Callable[[], None]) -> None:
    """Call `on_change` when files have changed and are stable again, until cancelled; `list_files` may block."""
    known = seen = await _read_signature(list_files)
    while True:
        await trio.sleep(_INTERVAL)
        before, seen = seen, await _read_signature(list_files)
        if seen == before and seen != known:  # else a file may be half written
            known = seen
            on_change()


async def _read_signature(list_files: Callable[[], Iterable[str]]) -> Signature:
    return await trio.to_thread.run_sync(lambda: tuple(sorted(_sign(list_files()))), abandon_on_cancel=True)


def _expand(paths: Iterable[str]) -> set[str]:
    """The paths, and the files in those that are directories."""
    found = set(paths)
    for path in paths:
        with suppress(OSError):
            found.update(entry.path for entry in os.scandir(path))
    return found


def _sign(files: Iterable[str]) -> Iterable[tuple[str, int, int, int]]:
    for file in _expand(files):
        with suppress(OSError):  # a file that does not exist counts when it appears
            found = os.stat(file)  # of the target of a symbolic link, which Kubernetes replaces
            yield file, found.st_ino, found.st_size, found.st_mtime_ns
