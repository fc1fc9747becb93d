"""Resolves the names of targets on threads, for the event loop."""

from __future__ import annotations

from collections.abc import Callable

import trio

from tunnel.config.model import NameResolution
from tunnel.errors import TargetError, TargetFault
from tunnel.listener.targets import Resolved, resolve_target
from tunnel.net.address import TargetAddress


class NameResolver:
    """Resolves names between `open` and `close`."""

    def __init__(self) -> None:
        self._is_over = False

    def open(self, nursery: trio.Nursery) -> None:
        """Resolve in tasks of this nursery from now on."""
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()

    def close(self) -> None:
        """Answer with an error from now on: the process may run a command that connects once more."""
        self._is_over = True

    def resolve_later(self, address: TargetAddress, resolution: NameResolution, answer: Callable[[Resolved], object]) -> None:
        """Resolve an address, and call `answer` with the result; called from the event loop."""
        self._token.run_sync_soon(self._begin, address, resolution, answer)

    def _begin(self, address: TargetAddress, resolution: NameResolution, answer: Callable[[Resolved], object]) -> None:
        if self._is_over:
            answer(TargetError(TargetFault.RESOLVE, f"{address}: not resolved because the proxy has stopped"))
        else:
            self._nursery.start_soon(self._resolve, address, resolution, answer)

    async def _resolve(self, address: TargetAddress, resolution: NameResolution, answer: Callable[[Resolved], object]) -> None:
        result: Resolved
        try:
            result = await trio.to_thread.run_sync(resolve_target, address, resolution, abandon_on_cancel=True)
        except TargetError as error:
            result = error
        answer(result)
