"""A tunnel in the parent of workers: it has the listener and the state of the identity; the workers have the connections."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from tunnel.config.model import ListenerConfig
from tunnel.listener.connection_log import Retry
from tunnel.listener.generation import Generation
from tunnel.listener.shared_resources import SharedResources
from tunnel.listener.target_pool import PooledTarget
from tunnel.listener.targets import ResolveLater
from tunnel.listener.tunnel_control import TunnelControl
from tunnel.net.holders import ListeningPorts
from tunnel.net.listen import Listener
from tunnel.status.counters import Counters
from tunnel.status.histogram import ConnectionDurations
from tunnel.status.peer_table import PeerKey, PeerTraffic
from tunnel.status.process_state import PlainSource, PlaintextState
from tunnel.workers.messages import (
    ConnectionEvent,
    Open,
    Order,
    ShowChallenge,
    ShowTargets,
    TargetResult,
    TunnelOrder,
    TunnelReport,
    UseTimers,
    Withdraw,
)

if TYPE_CHECKING:  # loaded only when a certificate comes from an ACME server
    from tunnel.tls.acme_challenge import AcmeChallenges
    from tunnel.tls.context import Presented


_LOST = "worker_lost"  # the outcome of connections whose worker has died


class Workers(Protocol):
    """The workers, as a tunnel uses them."""

    @property
    def running(self) -> frozenset[int]:
        """The indexes of the workers that run."""

    def add(self, tunnel: SharedTunnel) -> int:
        """Make this tunnel one of the workers'; return its number, with which they get its configuration."""

    def forget(self, tunnel: SharedTunnel) -> None:
        """Forget a tunnel without connections."""

    def send(self, message: object, sock: socket.socket | None = None) -> None:
        """Send a message to all workers."""

    def send_configuration(self, tunnel: SharedTunnel) -> None:
        """Send the configuration of a tunnel, to each worker with its share of the limits."""

    def send_credentials(self, tunnel: SharedTunnel, withdrawn_in: float | None) -> None:
        """Send the credentials of a tunnel."""

    def watch_counts(self) -> None:
        """Ask for reports at short intervals until no listener is handed over any more."""

    def group_of(self, counters: Counters) -> int:
        """The number of the group whose timers these are."""


class SharedTunnel(TunnelControl):
    """Controls the tunnels of all workers for one listener."""

    def __init__(self, workers: Workers, shared: SharedResources, config: ListenerConfig, resolve_later: ResolveLater) -> None:
        self._workers = workers
        self._reports: dict[int, TunnelReport] = {}  # by worker
        self._draining: frozenset[int] = frozenset()  # workers that have not reported the end of their connections
        self.challenge: ShowChallenge | None = None
        super().__init__(shared, config, resolve_later)
        self.number = workers.add(self)
        self.limit_peers(config)
        workers.send_configuration(self)
        self.targets.pool.on_change = self._share_targets

    # -- what a new worker must know

    def introduce(self) -> Iterator[tuple[object, socket.socket | None]]:
        """Yield what a new worker must know after the configuration and the credentials."""
        yield self._describe_targets(), None
        if self.challenge is not None:
            yield self.challenge, None
        if self.counters.handshake is not None:
            yield UseTimers(self.number, self._workers.group_of(self.counters)), None
        if self._listener is not None:
            yield Open(self.number, self.name), self._listener.socket

    # -- the identity

    def swap(self, generation: Generation, *, withdrawn_in: float | None = None) -> None:
        """Use a new generation in all workers."""
        super().swap(generation, withdrawn_in=withdrawn_in)
        self._workers.send_credentials(self, withdrawn_in)

    def judge_again(self) -> None:
        """Judge the peers of all connections again."""
        super().judge_again()
        self._order(Order.JUDGE_AGAIN)

    def withdraw(self, grace: float) -> None:
        """Stop using the identity `grace` seconds after the first call."""
        super().withdraw(grace)
        self._workers.send(Withdraw(self.number, grace))

    def confirm(self) -> None:
        """Cancel `withdraw`."""
        super().confirm()
        self._order(Order.CONFIRM)

    def close_without_identity(self) -> None:
        """The workers do, at the same time."""

    def accept_challenges(self, challenges: AcmeChallenges | None) -> None:
        """Answer these ACME challenges in all workers."""
        if challenges is not None and self._challenge_from_thread not in challenges.observers:
            challenges.observers.append(self._challenge_from_thread)

    def _challenge_from_thread(self, domain: str, presented: Presented | None) -> None:
        self.challenge = ShowChallenge(self.number, domain, presented)
        self.loop.call_from_thread(partial(self._workers.send, self.challenge))

    # -- accepting

    def apply_config(self) -> None:
        """Send the configuration to each worker, with its share of the limits."""
        self._workers.send_configuration(self)
        self._share_targets()

    def use_timers(self, timers: Counters) -> None:
        """Measure durations from now on."""
        super().use_timers(timers)
        self._workers.send(UseTimers(self.number, self._workers.group_of(self.counters)))

    def open(self, listener: Listener) -> None:
        """Accept connections from now on."""
        self._draining = frozenset()
        super().open(listener)

    def start_accepting(self) -> None:
        """Give the workers the listening socket."""
        if self._listener is not None:
            self._workers.send(Open(self.number, self.name), self._listener.socket)

    def stop_accepting(self) -> None:
        """Stop accepting in all workers."""
        if self._listener is not None:
            self._draining = self._workers.running
            self._order(Order.RELEASE)

    def drain(self, ports: ListeningPorts | None = None) -> None:
        """Stop accepting."""
        super().drain(ports)
        if self.is_handed_over:
            self._workers.watch_counts()

    def abort_pending(self) -> None:
        """Close the connections whose relay has not begun."""
        self._order(Order.ABORT_PENDING)

    def abort_connections(self) -> None:
        """Close all connections."""
        self._order(Order.ABORT)

    @property
    def is_drained(self) -> bool:
        """Whether the listener and all connections are closed."""
        return self._listener is None and not self._draining

    def end_draining(self, worker: int) -> None:
        """A worker has no connections any more."""
        self._draining -= {worker}
        self.report_drained()

    def close(self) -> None:
        """The workers forget it."""
        self._workers.forget(self)

    def _order(self, order: Order) -> None:
        self._workers.send(TunnelOrder(self.number, order))

    # -- connections

    def take(self, event: ConnectionEvent) -> None:
        """Log and observe what has happened to a connection of a worker."""
        if isinstance(event.what, Retry):
            self.connection_log.write_described_retry(event.what)
        elif event.is_end:
            self.announce(event.what)
        else:
            self.connection_log.write_opening(event.what)

    def note_target(self, result: TargetResult) -> None:
        """A worker has connected a target, or failed to."""
        pool = self.targets.pool
        for target in [one for one in pool.targets if one.route.target_name == result.target]:
            self._note(target, result.error)

    def _note(self, target: PooledTarget, error: str | None) -> None:
        pool = self.targets.pool
        if self.targets.only is target:
            pool.show_result(target, error or "")
        elif error is None:
            pool.note_success(target)
        else:
            pool.note_failure(target, error)

    def _describe_targets(self) -> ShowTargets:
        targets = self.targets.pool.targets
        return ShowTargets(self.number, {one.route.target_name: (one.is_healthy, bool(one.error)) for one in targets})

    def _share_targets(self) -> None:
        self._workers.send(self._describe_targets())

    # -- counts

    def show_report(self, worker: int, report: TunnelReport) -> None:
        """Use the counts of a worker until its next report; raises an exception, and keeps nothing, if they are not counts."""
        _require_counts(report)
        self._reports[worker] = report
        for target in self.targets.pool.targets:
            name = target.route.target_name
            target.opened = sum(one.targets.get(name, 0) for one in self._reports.values())

    def lose_worker(self, worker: int) -> int:
        """Keep the counts of a worker that has ended; return how many connections were lost."""
        report = self._reports.pop(worker, None)
        if report is not None:
            self.counters.absorb(report.counters)
            _absorb_durations(self.counters, report.counters)
            self.counters.forwarded += report.forwarded - report.counters.forwarded
            self.counters.returned += report.returned - report.counters.returned
            if report.opened:
                self.counters.other_ends[_LOST] = self.counters.other_ends.get(_LOST, 0) + report.opened
        self.end_draining(worker)
        return report.opened if report is not None else 0

    def __len__(self) -> int:
        return sum(report.opened for report in self._reports.values())

    def read_counters(self) -> Counters:
        """The counters of all workers, at their last reports."""
        return _sum_counters((self.counters, *(report.counters for report in self._reports.values())))

    def count_traffic(self) -> tuple[int, int]:
        """Bytes of all workers, from the accepted side to the target and in the other direction."""
        reports = self._reports.values()
        return sum(report.forwarded for report in reports), sum(report.returned for report in reports)

    def traffic_by_peer(self) -> Iterator[tuple[PeerKey, PeerTraffic]]:
        """Yield the traffic of the open connections by peer; a peer can occur several times."""
        return chain.from_iterable(report.peers for report in self._reports.values())

    @property
    def handshakes_in_progress(self) -> int:
        """How many handshakes of clients hold a slot."""
        return sum(report.handshakes for report in self._reports.values())

    def plaintext_state(self) -> PlaintextState | None:
        """What is known about plain clients; None if they are refused."""
        if self.config.plaintext is None:
            return None
        known = self._plain_states()
        sources = _merge_sources(chain.from_iterable(one.sources for one in known))
        forgotten = sum(one.forgotten for one in known)
        return PlaintextState(self.count_plain(), self.read_counters().plaintext, sources, forgotten)

    def count_plain(self) -> int:
        """How many connections of plain clients are open."""
        return sum(one.opened for one in self._plain_states())

    def _plain_states(self) -> list[PlaintextState]:
        return [report.plain for report in self._reports.values() if report.plain is not None]

    def count_accepted(self) -> int:
        """How many connections were accepted, at the last reports."""
        return self.read_counters().accepted


def _require_counts(report: TunnelReport) -> None:
    """Raise an exception for values that cannot be added up."""
    _sum_counters((report.counters,))
    sum((report.opened, report.forwarded, report.returned, report.handshakes, *report.targets.values()))


def _sum_counters(parts: Iterable[Counters]) -> Counters:
    whole = Counters()
    for part in parts:
        whole.add(part)
        if part.durations is not None:
            whole.durations = whole.durations or ConnectionDurations()
            whole.durations.absorb(part.durations)
    return whole


def _absorb_durations(counters: Counters, other: Counters) -> None:
    if counters.durations is not None and other.durations is not None:
        counters.durations.absorb(other.durations)


def _merge_sources(sources: Iterator[PlainSource]) -> tuple[PlainSource, ...]:
    """The sources of all workers, the last one first."""
    merged: dict[str, PlainSource] = {}
    for one in sources:
        known = merged.get(one.source, PlainSource(one.source, 0, 0.0))
        connections, last = known.connections + one.connections, max(known.last_seen, one.last_seen)
        merged[one.source] = PlainSource(one.source, connections, last)
    return tuple(sorted(merged.values(), key=lambda one: one.last_seen, reverse=True))
