"""The foreground task of a service: serve until a signal or the status port requests a stop, then drain."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import trio

from tunnel.child.inherited import restore_default
from tunnel.errors import TunnelError
from tunnel.log import Log
from tunnel.proxy.proxy import Proxy

_STOP = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}
_RELOAD = {signal.SIGHUP: "hangup", signal.SIGUSR1: "user defined signal 1"}


class ServiceTask:
    """Controls a proxy by signals; the exit code is 1 if connections had to be closed at the end of the drain."""

    def __init__(self, proxy: Proxy, log: Log) -> None:
        self.failure: TunnelError | None = None
        self.exit_code = 0
        self._proxy = proxy
        self._log = log
        self._scope = trio.CancelScope()

    async def run(self, nursery: trio.Nursery) -> None:
        """Serve, then drain."""
        with trio.open_signal_receiver(*_STOP, *_RELOAD) as signals, self._scope:
            nursery.start_soon(self._process_signals, signals)
            await self._proxy.stop_requested.wait()
            self._proxy.data_plane.exit_with_parent()
            for number in _STOP:
                restore_default(number)  # a second signal ends the process at once
            await self._proxy.delay_shutdown(self._proxy.config.shutdown_delay)
            self.exit_code = 1 if await self._proxy.drain(self._proxy.config.shutdown_timeout) else 0

    def fail(self, error: TunnelError) -> None:
        """End without a drain: the proxy has failed."""
        self.failure = error
        self._scope.cancel()

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
                self._log.info(f"received {_RELOAD[signal.Signals(number)]}, reloading {self._proxy.reload_subject}")
                self._proxy.request_reload()
