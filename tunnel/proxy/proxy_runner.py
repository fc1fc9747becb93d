"""Runs the one proxy of `tunnel server` or `tunnel client`, controlled by signals."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import trio

from tunnel.child.inherited import restore_default
from tunnel.errors import TunnelError
from tunnel.log import Log
from tunnel.proxy.process_context import ProcessContext, run_background_tasks
from tunnel.proxy.proxy import Proxy

_STOP = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}
_RELOAD = {signal.SIGHUP: "hangup", signal.SIGUSR1: "user defined signal 1"}


class ProxyRunner:
    """Runs one proxy until a signal or the status port stops it."""

    def __init__(self, proxy: Proxy, log: Log, process_context: ProcessContext) -> None:
        self._proxy = proxy
        self._log = log
        self._process_context = process_context
        self._failure: TunnelError | None = None
        self.exit_code = 0

    async def run(self) -> None:
        """Wait for an identity, serve, drain; raises TunnelError if the proxy cannot start or continue."""
        with trio.open_signal_receiver(*_STOP, *_RELOAD) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_proxy, nursery.cancel_scope)
                nursery.start_soon(self._process_signals, signals)
                nursery.start_soon(run_background_tasks, self._process_context, self._log)
                await self._proxy.stop_requested.wait()
                for number in _STOP:
                    restore_default(number)  # a second signal ends the process at once
                await self._proxy.delay_shutdown(self._proxy.process.shutdown_delay)
                self.exit_code = 1 if await self._proxy.drain(self._proxy.process.shutdown_timeout) else 0
                self._proxy.close()
        if self._failure is not None:
            raise self._failure

    async def _run_proxy(self, everything: trio.CancelScope) -> None:
        try:
            await self._proxy.run()
        except TunnelError as error:
            self._failure = error
        everything.cancel()

    async def _process_signals(self, signals: AsyncIterator[int]) -> None:
        """Stop or reload at each signal; a stop cannot be cancelled."""
        async for number in signals:
            is_stopping = self._proxy.stop_requested.is_set()
            if number in _STOP and is_stopping:
                signal.raise_signal(number)  # it came before the default action was restored
            elif number in _STOP:
                self._log.info(f"received {_STOP[signal.Signals(number)]}, shutting down")
                self._proxy.stop_requested.set()
            elif is_stopping:
                self._log.info(f"received {_RELOAD[signal.Signals(number)]}, ignored while shutting down")
            else:
                self._log.info(f"received {_RELOAD[signal.Signals(number)]}, reloading TLS configuration")
                self._proxy.reload()
