"""Reloads the certificates and the policy of one proxy, on request and periodically."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio

from tunnel.errors import TunnelError, identity_errors
from tunnel.log import Log
from tunnel.proxy.identity_source import IdentitySource
from tunnel.proxy.reloadable_policy import ReloadablePolicy
from tunnel.proxy.state_reporter import StateReporter
from tunnel.sandbox.landlock import explain_denial
from tunnel.status.counters import Counters, Reloads
from tunnel.status.process_state import Reload


class Reloader:
    """Runs one reload at a time; requests during a reload cause one more after it.

    Each part is reloaded on its own: after an error, the previous configuration of that part stays in use.
    """

    def __init__(
        self,
        source: IdentitySource,
        policy: ReloadablePolicy | None,
        state_reporter: StateReporter,
        counters: Counters,
        log: Log,
        *,
        interval: float,
    ) -> None:
        self._identity_source = source
        self._policy = policy
        self._state_reporter = state_reporter
        self._counters = counters
        self._log = log
        self._interval = interval  # seconds between periodic reloads; 0 for none
        self._requested = trio.Event()

    def request(self) -> None:
        """Request a reload."""
        self._requested.set()

    async def run(self) -> None:
        """Reload at each request and periodically, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._request_periodically)
            while True:
                await self._requested.wait()
                self._requested = trio.Event()
                await self._reload()

    async def _request_periodically(self) -> None:
        while self._interval:
            await trio.sleep(self._interval)
            self.request()

    async def _reload(self) -> None:
        self._state_reporter.show_reloading()
        certificates = await self._reload_part(
            "error reloading TLS configuration", self._identity_source.reload, self._counters.certificates
        )
        policy = None
        if self._policy is not None:
            policy = await self._reload_part("error reloading OPA policy", self._policy.load, self._counters.policy)
            if not policy:
                self._counters.policy.count(is_success=True)
        self._log.info("reloading configuration complete")
        self._state_reporter.show_reloaded(Reload(time.time_ns(), certificates, policy))

    async def _reload_part(self, failure: str, reload: Callable[[], Awaitable[None]], counts: Reloads) -> str:
        """Reload one part; return and log the error, or return "" after success."""
        try:
            with identity_errors("the reload failed"):  # for example, no thread or no memory
                await reload()
        except TunnelError as error:
            counts.count(is_success=False)
            why = f"{error}{explain_denial(error)}"
            self._log.write(f"{failure}: {why}; keeping the previous configuration")
            return why
        return ""
