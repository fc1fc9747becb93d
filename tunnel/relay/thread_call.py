"""A step of a session that calls a blocking function on a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunnel.errors import PeerDenied
from tunnel.relay.loop import Loop
from tunnel.relay.step import StepOwner

if TYPE_CHECKING:  # loaded with the first thread
    from concurrent.futures import Future


class ThreadCall:
    """A step that calls a function on a thread."""

    def __init__(self, loop: Loop, owner: StepOwner, action: Callable[[], object]) -> None:
        self._loop = loop
        self._owner = owner
        self._action = action
        self._future: Future[object] | None = None

    def start(self) -> None:
        self._future = self._loop.call_in_thread(self._action, self._answer, self._owner)

    def abandon(self) -> None:
        """Ignore the result, and free the thread if the function has not begun."""
        if self._future is not None:
            self._future.cancel()
        self._future = None

    def _answer(self, future: Future[object]) -> None:
        if self._future is None:
            return
        try:
            result = future.result()
        except PeerDenied as denied:
            self._owner.step_failed(denied)
        else:
            self._owner.step_done(result)
