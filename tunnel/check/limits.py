"""Calls that may take for ever, kept to a limit.

Knows trio, which has the waiting; must not know what is called. What does not come back is left behind on its thread, and
ends with the process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call that blocks returns or raises; TimeoutError when that takes longer."""

    async def wait() -> T:
        with trio.fail_after(seconds):
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True)

    try:
        return trio.run(wait)
    except trio.TooSlowError:
        raise TimeoutError(f"no answer within {seconds:g}s") from None


def run(ask: Callable[[], Awaitable[T]]) -> T:
    """What an asynchronous call, which keeps to a limit of its own, returns or raises."""
    return trio.run(ask)
