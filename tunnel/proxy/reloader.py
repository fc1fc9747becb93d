"""Reading again what changes without a word: certificates and policy, each on its own.

Knows when a reload is due, what it says, and that a broken file keeps everything old of its kind; must not know files.
"""

from __future__ import annotations

import time

import trio

from tunnel.errors import TunnelError, identity_errors
from tunnel.log import Log
from tunnel.proxy.identity_source import IdentitySource
from tunnel.proxy.reloadable_policy import ReloadablePolicy
from tunnel.proxy.state_reporter import StateReporter
from tunnel.sandbox.landlock import explain_denial
from tunnel.status.counters import Counters
from tunnel.status.process_state import Reload


class Reloader:
    """One reload at a time; what is asked for meanwhile is done once, after it."""

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
        self._interval = interval  # seconds between reloads that nobody asks for; 0 for none
        self._wanted = trio.Event()

    def ask(self) -> None:
        """Reload soon."""
        self._wanted.set()

    async def run(self) -> None:
        """Reload whenever it is asked for or due, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_in_time)
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                await self._reload()

    async def _ask_in_time(self) -> None:
        while self._interval:
            await trio.sleep(self._interval)
            self.ask()

    async def _reload(self) -> None:
        self._state_reporter.show_reloading()
        certificates = await self._reload_certificates()
        policy = None if self._policy is None else await self._reload_policy(self._policy)
        self._log.info("reloading configuration complete")
        self._state_reporter.show_reloaded(Reload(time.time_ns(), certificates, policy))

    async def _reload_certificates(self) -> str:
        """What went wrong, "" for nothing."""
        try:
            with identity_errors("the reload failed"):  # no thread or no memory, perhaps
                await self._identity_source.reload()
        except TunnelError as error:
            return self._note_certificates(error)
        return ""

    def _note_certificates(self, error: TunnelError) -> str:
        self._counters.certificates.count(is_success=False)
        why = f"{error}{explain_denial(error)}"
        self._log.write(f"error reloading TLS configuration: {why}, the last good one stays")
        return why

    async def _reload_policy(self, policy: ReloadablePolicy) -> str:
        """What went wrong, "" for nothing."""
        try:
            with identity_errors("the reload failed"):
                await policy.load()
        except TunnelError as error:
            return self._note_policy(error)
        self._counters.policy.count(is_success=True)
        return ""

    def _note_policy(self, error: TunnelError) -> str:
        self._counters.policy.count(is_success=False)
        why = f"{error}{explain_denial(error)}"
        self._log.write(f"error reloading OPA policy: {why}, the last good one stays")
        return why
