"""The control plane of `tunnel connect`: one proxy, one connection, and how it ended.

Knows when the connection begins and what counts as a good end; must not know where the bytes come from.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from tunnel.errors import TunnelError
from tunnel.net.streams import StandardStreams
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.wait_ready import wait_ready

_FAREWELL = 2.0  # seconds for the server to take our end, when it has ended already


class StdioClient:
    """Carries standard input and output once."""

    def __init__(self, proxy: Proxy, complain: Callable[[], None]) -> None:
        self._proxy = proxy
        self._complain = complain
        self._over = trio.Event()
        self._failure: TunnelError | None = None
        self._streams = StandardStreams(self._report_over)
        self.is_well = False  # the server has ended in good order, or whoever read our output has

    async def run(self) -> None:
        """Return when the server has ended; raises TunnelError when nothing could begin."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_proxy, nursery.cancel_scope)
            await wait_ready([self._proxy], self._complain)
            self._proxy.tunnel.adopt(self._streams.inner)
            self._streams.start()
            await self._over.wait()
            self.is_well = not self.fault and (self._streams.is_broken or self._has_good_end())
            self._streams.end_input()
            await self._proxy.drain(_FAREWELL)
            self._proxy.close()
        if self._failure is not None:
            raise self._failure

    @property
    def fault(self) -> str:
        """What has kept standard input or output from being carried whole; "" if nothing has."""
        return self._streams.fault

    def _has_good_end(self) -> bool:
        """Whether all that has come out is all that the server has said."""
        counters = self._proxy.tunnel.counters
        return counters.carried == 1 and not (counters.truncated or counters.other_ends)

    async def _run_proxy(self, everything: trio.CancelScope) -> None:
        try:
            await self._proxy.run()
        except TunnelError as error:
            self._failure = error
        everything.cancel()

    def _report_over(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._over.set)
