"""Waits, and notifies a person once if that takes long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

T = TypeVar("T")

NOTICE_DELAY: Final = 2.0  # seconds


async def wait_with_notice(wait: Callable[[], Awaitable[T]], notify: Callable[[], None]) -> T:
    """Return what `wait` returns; call `notify` once after NOTICE_DELAY. `wait` is then cancelled and called again."""
    with trio.move_on_after(NOTICE_DELAY):
        return await wait()
    notify()
    return await wait()
