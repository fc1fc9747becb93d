"""Builds the page of a status port, and records its history while the port serves."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio

from tunnel.proxy.monitor_scope import MonitorScope
from tunnel.proxy.overview_source import OverviewSource
from tunnel.status.history import INTERVAL, History, Totals, point_between
from tunnel.status.overview import count_failed, count_refused
from tunnel.status.page import Page, load_page_files
from tunnel.status.page_events import PageEvents


def open_page(scope: MonitorScope, overview: OverviewSource) -> tuple[Page, Callable[[], Awaitable[None]]]:
    """Return the page, and the task that records its history; raises ConfigError."""
    history = History()
    events = PageEvents(overview.encode_all, history)
    return Page(load_page_files(), events.stream), HistoryRecorder(scope, history).run


class HistoryRecorder:
    """Takes a point of the history at each interval: all that a page costs while nobody reads it."""

    def __init__(self, scope: MonitorScope, history: History) -> None:
        self._scope = scope
        self._history = history
        self._lag = 0.0  # the longest of this interval

    async def run(self) -> None:
        """Record until cancelled."""
        observation = self._scope.process.observation
        observers = observation.lag_observers if observation is not None else []
        observers.append(self._observe_lag)
        try:
            await self._record()
        finally:
            observers.remove(self._observe_lag)

    async def _record(self) -> None:
        totals, taken = self._read(), trio.current_time()
        while True:
            await trio.sleep(INTERVAL)
            await self._scope.process.data_plane.refresh()
            before, begun = totals, taken
            totals, taken = self._read(), trio.current_time()
            lag, self._lag = self._lag, 0.0
            self._history.add(point_between(before, totals, seconds=taken - begun, now=time.time(), lag=lag))

    def _read(self) -> Totals:
        measured = self._scope.measure()
        counters, gauges = measured.counters, measured.gauges
        handshakes = sum(one.tunnel.read_counters().handshakes for one in self._scope.listeners())
        outcomes = count_refused(counters), count_failed(counters)
        return Totals(gauges.opened, handshakes, *outcomes, gauges.forwarded, gauges.returned)

    def _observe_lag(self, seconds: float) -> None:
        self._lag = max(self._lag, seconds)
