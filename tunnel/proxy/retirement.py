"""Listeners that a reload has removed: their connections continue for as long as the configuration says."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Protocol

import trio

from tunnel.config.model import IdentityConfig, ProcessConfig
from tunnel.log import Log, escape
from tunnel.proxy.identity_feed import IdentityFeed
from tunnel.proxy.proxy_listener import ProxyListener
from tunnel.proxy.reloadable_policy import ReloadablePolicy
from tunnel.proxy.state_reporter import StateReporter
from tunnel.status.counters import Counters


class RetiringProcess(Protocol):
    """The process, as the retirement of its listeners uses it."""

    config: ProcessConfig
    log: Log
    counters: Counters
    feeds: dict[IdentityConfig, IdentityFeed]
    listeners: dict[str, ProxyListener]
    state_reporter: StateReporter
    nursery: trio.Nursery

    def close_later(self, policy: ReloadablePolicy | None) -> None:
        """Close a policy that is no longer used."""

    def close_unused_feeds(self) -> None:
        """Stop the identity sources that no listener uses."""


class Retirement:
    """The removed listeners that still have connections; they get current trust bundles."""

    def __init__(self, process: RetiringProcess) -> None:
        self.listeners: list[ProxyListener] = []
        self._process = process

    def add(self, listener: ProxyListener) -> None:
        """Remove a listener from the process."""
        process, grace = self._process, self._process.config.on_removal.grace
        self._token = trio.lowlevel.current_trio_token()
        del process.listeners[listener.name]
        self.listeners.append(listener)
        listener.detach()
        process.state_reporter.show_removed(listener.name)
        if (sock := listener.tunnel.release()) is not None:
            sock.close()
        listener.tunnel.on_empty = self._forget_soon
        if not math.isinf(grace):
            process.nursery.start_soon(self._end, listener, grace)
        self._forget_soon()

    async def _end(self, listener: ProxyListener, grace: float) -> None:
        """Close the remaining connections of a removed listener in the end."""
        await trio.sleep(grace)
        if count := len(listener.tunnel):
            name = escape(listener.name)
            self._process.log.info(f"closing connections of a removed listener: listener={name} connections={count}")
            listener.tunnel.abort()

    def _forget_soon(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._forget)

    def _forget(self) -> None:
        process = self._process
        for listener in [one for one in self.listeners if one.tunnel.is_drained]:
            self.listeners.remove(listener)
            process.feeds[listener.config.identity].leave(listener)
            process.close_later(listener.policy)
            process.counters.absorb(listener.tunnel.read_counters())
            listener.tunnel.close()
        process.close_unused_feeds()
