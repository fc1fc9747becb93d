"""Supervises the proxy of the process together with its foreground task: a service, a command, or one connection."""

from __future__ import annotations

from typing import Protocol

import trio

from tunnel.errors import TunnelError
from tunnel.log import Log
from tunnel.proxy.process_context import ProcessContext, run_background_tasks
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.reloader import Reloader, ReloadSource


class ForegroundTask(Protocol):
    """What decides when the process stops: signals, a command, or the end of one connection."""

    failure: TunnelError | None  # why the process could not start or continue

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""

    async def run(self, nursery: trio.Nursery) -> None:
        """Return when the process has served and the connections are drained; tasks in `nursery` end with it."""

    def fail(self, error: TunnelError) -> None:
        """The proxy has failed: make `run` return soon."""


class Supervisor:
    """Runs a proxy until its foreground task ends."""

    def __init__(
        self,
        proxy: Proxy,
        task: ForegroundTask,
        process_context: ProcessContext,
        log: Log,
        reload_source: ReloadSource | None = None,
    ) -> None:
        self._proxy = proxy
        self._task = task
        self._process_context = process_context
        self._log = log
        self._reloader = Reloader(proxy, log, reload_source)

    async def run(self) -> None:
        """Return when the task has ended; raises TunnelError if the proxy could not start or continue."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_proxy, nursery.cancel_scope)
            nursery.start_soon(self._reloader.run)
            nursery.start_soon(run_background_tasks, self._process_context, self._log, self._proxy.sleep_and_confirm)
            await self._task.run(nursery)
            nursery.cancel_scope.cancel()
        if self._task.failure is not None:
            raise self._task.failure

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        return self._task.exit_code

    async def _run_proxy(self, everything: trio.CancelScope) -> None:
        try:
            await self._proxy.run()
        except TunnelError as error:
            if not everything.cancel_called:
                self._task.fail(error)
