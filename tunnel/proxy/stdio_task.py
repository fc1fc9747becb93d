"""The foreground task of `tunnel connect`: one connection, from standard input and to standard output."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import cast

import trio

from tunnel.errors import TunnelError
from tunnel.identity.wait_notice import wait_with_notice
from tunnel.listener.tunnel import Tunnel
from tunnel.net.streams import StandardStreams
from tunnel.proxy.proxy import Proxy

_DRAIN_LIMIT = 2.0  # seconds for the server to receive our end, after it has closed


class StdioTask:
    """Relays standard input and output over one connection."""

    def __init__(self, proxy: Proxy, report_wait: Callable[[], None]) -> None:
        self._proxy = proxy
        self._report_wait = report_wait
        self._over = trio.Event()
        self._scope = trio.CancelScope()
        self.failure: TunnelError | None = None
        self._streams = StandardStreams(self._report_over)
        self.has_succeeded = False  # the server has closed the connection properly, or the reader of our output has

    async def run(self, _nursery: trio.Nursery) -> None:
        """Return when the connection has ended."""
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            await wait_with_notice(self._proxy.is_listening.wait, self._report_wait)
            (self._listener,) = self._proxy.listeners.values()
            tunnel = cast(Tunnel, self._listener.tunnel)  # `connect` has no workers
            tunnel.serve_socket(self._streams.inner)
            self._streams.start()
            await self._over.wait()
            self.has_succeeded = not self.fault and (self._streams.is_broken or self._is_complete())
            self._streams.end_input()
            await self._proxy.drain(_DRAIN_LIMIT)

    def fail(self, error: TunnelError) -> None:
        """End: there is no connection, or it cannot continue."""
        self.failure = error
        self._scope.cancel()

    @property
    def exit_code(self) -> int:
        """0 if the connection ended in good order."""
        return 0 if self.has_succeeded else 1

    @property
    def fault(self) -> str:
        """The error of standard input or output, "" if there was none."""
        return self._streams.fault

    def _is_complete(self) -> bool:
        """Whether the output is complete: the relay ended with the end of the TLS stream."""
        counters = self._listener.tunnel.counters
        return counters.relayed == 1 and not (counters.truncated or counters.other_ends)

    def _report_over(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._over.set)
