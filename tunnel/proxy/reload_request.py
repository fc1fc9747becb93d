"""A request for a reload, and its result."""

from __future__ import annotations

import trio


class ReloadRequest:
    """A request for a reload; requests that come before it begins are one."""

    def __init__(self) -> None:
        self.requested = trio.Event()
        self.done = trio.Event()
        self.error = ""  # after `done`
