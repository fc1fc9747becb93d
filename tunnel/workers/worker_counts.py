"""Durations and loop lag of all workers, also of those that have ended."""

from __future__ import annotations

from typing import Final

from tunnel.status.counters import Counters
from tunnel.status.durations import add_totals
from tunnel.status.histogram import LAG_BOUNDS, Histogram
from tunnel.workers.messages import Report, Timers

_ENDED: Final = -1  # in place of the index of a worker: all that have ended


class WorkerCounts:
    """The last report of each worker, and the sum of the last reports of ended ones."""

    def __init__(self) -> None:
        self._groups: list[Counters] = []  # each with the timers that the listeners of a monitor share
        self._timers: dict[int, dict[int, Timers]] = {}  # by group and worker
        self._lags: dict[int, Histogram] = {}  # by worker

    def group_of(self, counters: Counters) -> int:
        """The number of the group whose timers these are."""
        for number, known in enumerate(self._groups):
            if known.handshake is counters.handshake:
                return number
        self._groups.append(Counters(handshake=counters.handshake, lifetime=counters.lifetime))
        return len(self._groups) - 1

    def take(self, worker: int, report: Report) -> None:
        """Use the counts of a worker until its next report; raises an exception, and keeps nothing, if they are not counts."""
        lag = Histogram(LAG_BOUNDS)
        lag.absorb(report.lag)
        known = {group: _add_timers([timers]) for group, timers in report.timers.items() if 0 <= group < len(self._groups)}
        self._lags[worker] = lag
        for group, timers in known.items():
            self._timers.setdefault(group, {})[worker] = timers
            self._show(group)

    def forget(self, worker: int) -> None:
        """Keep the counts of a worker that has ended."""
        if (lag := self._lags.pop(worker, None)) is not None:
            self._lags.setdefault(_ENDED, Histogram(LAG_BOUNDS)).absorb(lag)
        for timers in self._timers.values():
            ended = [timers.pop(index) for index in (_ENDED, worker) if index in timers]
            if ended:
                timers[_ENDED] = _add_timers(ended)

    def lag(self) -> Histogram:
        """The lag of the event loops of all workers."""
        whole = Histogram(LAG_BOUNDS)
        for one in self._lags.values():
            whole.absorb(one)
        return whole

    def _show(self, group: int) -> None:
        handshake, lifetime = _add_timers(list(self._timers[group].values()))
        shown = self._groups[group]
        if shown.handshake is not None and shown.lifetime is not None:
            shown.handshake.show(handshake)
            shown.lifetime.show(lifetime)


def _add_timers(parts: list[Timers]) -> Timers:
    """The sum of at least one."""
    return add_totals([handshake for handshake, _lifetime in parts]), add_totals([lifetime for _handshake, lifetime in parts])
