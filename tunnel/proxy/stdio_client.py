"""Runs `tunnel connect`: one proxy with one connection, from standard input and to standard output."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from tunnel.errors import TunnelError
from tunnel.net.streams import StandardStreams
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.wait_ready import wait_ready

_DRAIN_LIMIT = 2.0  # seconds for the server to receive our end, after it has closed


class StdioClient:
    """Relays standard input and output over one connection."""

    def __init__(self, proxy: Proxy, report_wait: Callable[[], None]) -> None:
        self._proxy = proxy
        self._report_wait = report_wait
        self._over = trio.Event()
        self._failure: TunnelError | None = None
        self._streams = StandardStreams(self._report_over)
        self.has_succeeded = False  # the server has closed the connection properly, or the reader of our output has

    async def run(self) -> None:
        """Return when the connection has ended; raises TunnelError if it could not begin."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_proxy, nursery.cancel_scope)
            await wait_ready([self._proxy], self._report_wait)
            self._proxy.tunnel.serve_socket(self._streams.inner)
            self._streams.start()
            await self._over.wait()
            self.has_succeeded = not self.fault and (self._streams.is_broken or self._is_complete())
            self._streams.end_input()
            await self._proxy.drain(_DRAIN_LIMIT)
            self._proxy.close()
        if self._failure is not None:
            raise self._failure

    @property
    def fault(self) -> str:
        """The error of standard input or output, "" if there was none."""
        return self._streams.fault

    def _is_complete(self) -> bool:
        """Whether the output is complete: the relay ended with the end of the TLS stream."""
        counters = self._proxy.tunnel.counters
        return counters.relayed == 1 and not (counters.truncated or counters.other_ends)

    async def _run_proxy(self, everything: trio.CancelScope) -> None:
        try:
            await self._proxy.run()
        except TunnelError as error:
            self._failure = error
        everything.cancel()

    def _report_over(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._over.set)
