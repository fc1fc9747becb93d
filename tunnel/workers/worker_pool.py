"""The parent of workers: starts and replaces them, sends them what changes, and collects what they report."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Final, Protocol

import trio

from tunnel.backoff import doubled_delay
from tunnel.config.model import ListenerConfig
from tunnel.errors import Denial, LimitExceeded, PeerDenied, TunnelError, WorkerError
from tunnel.identity.credentials import Credentials
from tunnel.listener.shared_resources import SharedResources
from tunnel.listener.targets import ResolveLater
from tunnel.listener.tunnel_control import TunnelControl
from tunnel.log import escape
from tunnel.relay.loop import Loop
from tunnel.status.counters import Counters
from tunnel.status.histogram import Histogram
from tunnel.workers.codec import encode
from tunnel.workers.limit_shares import share_limits
from tunnel.workers.messages import (
    Answer,
    Ask,
    AskLimit,
    AskPolicy,
    Batch,
    ChangeLog,
    Configure,
    Drained,
    ExitWithParent,
    LogLine,
    Order,
    ReleasePeer,
    Report,
    Setup,
    Started,
    Stop,
    Swap,
    TargetResult,
    TunnelOrder,
)
from tunnel.workers.questions import ParentRefusal
from tunnel.workers.shared_tunnel import SharedTunnel
from tunnel.workers.worker_counts import WorkerCounts
from tunnel.workers.worker_handle import WorkerHandle

_SHORT_LIFE: Final = 10.0  # seconds: a worker that ends earlier has failed to start
_MOST_FAILURES: Final = 5  # in a row, of all workers
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0  # seconds until a worker is replaced
_REPORT_LIMIT: Final = 1.0  # seconds for a report; else the last one counts
_STOP_LIMIT: Final = 2.0  # seconds for the last report and the exit
_WATCH_INTERVAL: Final = 0.1  # seconds between reports while a listener is handed over


class Asked(Protocol):
    """What answers the questions of workers."""

    def admits(self, leaf: bytes) -> bool:
        """Whether the policy admits the peer with this certificate, which may block; raises PeerDenied if it fails."""


class WorkerPool:
    """All workers of the process, and their tunnels."""

    def __init__(
        self,
        count_of_workers: int,
        shared: SharedResources,
        *,
        drain_limit: float,
        counters: Counters,
        policy_of: Callable[[TunnelControl], Asked | None],
        on_failure: Callable[[TunnelError], None],
    ) -> None:
        """`counters` are those of the process."""
        self._shared = shared
        self._counters = counters
        self._loop: Loop = shared.loop
        self._log = shared.log
        self._count = count_of_workers
        self._drain_limit = drain_limit
        self._policy_of = policy_of
        self._on_failure = on_failure
        self._workers: dict[int, WorkerHandle] = {}
        self._tunnels: dict[int, SharedTunnel] = {}
        self._numbers = count(1)
        self._credentials: dict[int, tuple[int, Credentials]] = {}  # by tunnel: their ID, and they
        self._counts = WorkerCounts()
        self._reports = count(1)
        self._failures = 0  # workers in a row that did not live long
        self.restarts = 0
        self.lost_lines = 0  # of workers that have ended
        self._is_stopping = False
        self._exit_with_parent = False
        self._changed = trio.Event()  # a worker has started, reported or ended
        self._token: trio.lowlevel.TrioToken | None = None

    # -- the processes

    def start(self) -> None:
        """Start all workers; raises WorkerError. Call it once, inside trio."""
        self._token = trio.lowlevel.current_trio_token()
        for index in range(self._count):
            self._start(index)

    async def wait_started(self) -> None:
        """Wait until all workers can take connections."""
        await self._wait_until(
            lambda: len(self._workers) == self._count and all(one.is_started for one in self._workers.values())
        )

    @property
    def pids(self) -> set[int]:
        """The process IDs."""
        return {worker.pid for worker in self._workers.values()}

    @property
    def count(self) -> int:
        """How many workers run."""
        return len(self._workers)

    @property
    def running(self) -> frozenset[int]:
        """The indexes of the workers that run."""
        return frozenset(self._workers)

    def exit_with_parent(self) -> None:
        """Have the workers exit at once if this process ends, instead of draining."""
        self._exit_with_parent = True
        self.send(ExitWithParent())

    async def stop(self) -> None:
        """Get the last reports, and end all workers."""
        self._is_stopping = True
        self.send(Stop())
        with trio.move_on_after(_STOP_LIMIT):
            await self._wait_until(lambda: not self._workers)
        self.kill()

    def kill(self) -> None:
        """End all workers at once."""
        self._is_stopping = True
        for worker in self._workers.values():
            worker.kill()
            worker.end()
        self._workers.clear()

    def _start(self, index: int) -> None:
        worker = self._workers[index] = WorkerHandle(index, self._loop, self._on_message, self._on_ended)
        access_log = self._shared.access_log
        setup = Setup(
            names_listeners=self._shared.names_listeners,
            omitted=self._log.omitted,
            has_events=access_log is not None,
            has_start_events=access_log is not None and access_log.has_start,
            is_observed=bool(self._shared.observers),
            drain_limit=self._drain_limit,
        )
        worker.channel.send(setup)
        if self._exit_with_parent:
            worker.channel.send(ExitWithParent())
        for tunnel in self._tunnels.values():
            self._introduce(worker, tunnel)

    def _introduce(self, worker: WorkerHandle, tunnel: SharedTunnel) -> None:
        worker.channel.send(self._configuration_for(worker, tunnel))
        if tunnel.generation is not None:
            worker.channel.send(self._swap_for(worker, tunnel, tunnel.withdrawn_in))
        for message, sock in tunnel.introduce():
            worker.channel.send(message, sock)

    def _on_ended(self, worker: WorkerHandle, crash: Exception | None) -> None:
        """Count what is lost, and replace the worker."""
        if crash is not None:
            worker.kill()
        how = worker.end()
        del self._workers[worker.index]
        lost = sum(tunnel.lose_worker(worker.index) for tunnel in self._tunnels.values())
        worker.release_peers()
        self._counts.forget(worker.index)
        self.lost_lines += worker.dropped
        self._notify()
        if self._is_stopping:
            return
        self.restarts += 1
        why = f" after an unexpected message: {escape(f'{type(crash).__name__}: {crash}')}" if crash is not None else ""
        self._log.write(f"error: worker ended: worker={worker.index} pid={worker.pid} {how}{why} connections={lost}")
        self._replace(worker)

    def _replace(self, worker: WorkerHandle) -> None:
        is_early = self._loop.clock() - worker.began < _SHORT_LIFE
        self._failures = self._failures + 1 if is_early else 0
        if self._failures >= _MOST_FAILURES:
            self._on_failure(WorkerError(f"{self._failures} workers in a row ended within {_SHORT_LIFE:g}s of their start"))
            return
        delay = doubled_delay(_FIRST_DELAY, max(self._failures, 1), _LONGEST_DELAY)
        self._loop.call_later(delay, partial(self._start_again, worker.index))

    def _start_again(self, index: int) -> None:
        if self._is_stopping:
            return
        try:
            self._start(index)
        except WorkerError as error:
            self._on_failure(error)
            return
        self._log.info(f"worker started: worker={index} pid={self._workers[index].pid}")

    # -- tunnels

    def new_tunnel(self, config: ListenerConfig, resolve_later: ResolveLater) -> SharedTunnel:
        """Create a tunnel in all workers."""
        return SharedTunnel(self, self._shared, config, resolve_later)

    def add(self, tunnel: SharedTunnel) -> int:
        """Make this tunnel one of the workers'; return its number, with which they get its configuration."""
        number = next(self._numbers)
        self._tunnels[number] = tunnel
        return number

    def forget(self, tunnel: SharedTunnel) -> None:
        """Forget a tunnel without connections."""
        del self._tunnels[tunnel.number]
        self._credentials.pop(tunnel.number, None)
        self.send(TunnelOrder(tunnel.number, Order.FORGET))

    def send(self, message: object, sock: socket.socket | None = None) -> None:
        """Send a message to all workers."""
        data = encode(message)
        for worker in self._workers.values():
            worker.channel.send_encoded(data, sock)

    def send_configuration(self, tunnel: SharedTunnel) -> None:
        """Send the configuration of a tunnel, to each worker with its share of the limits."""
        for worker in self._workers.values():
            worker.channel.send(self._configuration_for(worker, tunnel))

    def _configuration_for(self, worker: WorkerHandle, tunnel: SharedTunnel) -> Configure:
        share = share_limits(tunnel.config, worker.index, self._count)
        return Configure(tunnel.number, share or tunnel.config, share is not None)

    def send_credentials(self, tunnel: SharedTunnel, withdrawn_in: float | None) -> None:
        """Send the credentials of a tunnel, unless the worker has them already for another one."""
        generation = tunnel.generation
        assert generation is not None
        assert generation.credentials is not None
        known = next((one for one in self._credentials.values() if one[1] is generation.credentials), None)
        self._credentials[tunnel.number] = known or (next(self._numbers), generation.credentials)
        for worker in self._workers.values():
            worker.channel.send(self._swap_for(worker, tunnel, withdrawn_in))

    def _swap_for(self, worker: WorkerHandle, tunnel: SharedTunnel, withdrawn_in: float | None) -> Swap:
        assert tunnel.generation is not None
        number, credentials = self._credentials[tunnel.number]
        swap = Swap(
            tunnel.number, tunnel.generation.number, number, None if number in worker.sent else credentials, withdrawn_in
        )
        worker.sent.add(number)
        worker.sent &= {known for known, _credentials in self._credentials.values()}  # the worker forgets the others too
        return swap

    def share_log(self) -> None:
        """Tell the workers which lines are omitted, and whether records are observed."""
        self.send(ChangeLog(self._log.omitted, is_observed=bool(self._shared.observers)))

    # -- messages

    def _on_message(self, worker: WorkerHandle, message: object) -> None:
        match message:
            case Batch():
                self._take_batch(message)
            case Report():
                self._take_report(worker, message)
            case Drained(number, report) if number in self._tunnels:
                self._tunnels[number].show_report(worker.index, report)
                self._tunnels[number].end_draining(worker.index)
            case TargetResult(number) if number in self._tunnels:
                self._tunnels[number].note_target(message)
            case AskPolicy():
                self._ask_policy(worker, message)
            case AskLimit():
                worker.channel.send(Answer(message.number, self._admit(worker, message)))
            case ReleasePeer(number, peer):
                worker.release_peer(number, peer)
            case Started():
                worker.is_started = True
                self._notify()

    def _take_batch(self, batch: Batch) -> None:
        for entry in batch.entries:
            if isinstance(entry, LogLine):
                self._log.write_at(*entry)
            elif entry.tunnel in self._tunnels:
                self._tunnels[entry.tunnel].take(entry)
        if self._shared.access_log is not None:
            self._shared.access_log.encode_waiting()  # now: what cannot be encoded ends its worker, and not this process

    def _ask_policy(self, worker: WorkerHandle, question: AskPolicy) -> None:
        tunnel = self._tunnels.get(question.tunnel)
        policy = self._policy_of(tunnel) if tunnel is not None else None

        def ask() -> object:
            if policy is None:  # it was removed since the worker has begun its handshake
                return ParentRefusal(Denial.POLICY_ERROR.value, "unauthorized: there is no policy any more")
            try:
                return policy.admits(question.leaf)
            except PeerDenied as denied:
                return ParentRefusal(denied.reason.value, denied.seen)

        self._loop.call_in_thread(
            ask, lambda future: worker.channel.send(Answer(question.number, future.result())), worker.channel
        )

    def _admit(self, worker: WorkerHandle, question: AskLimit) -> ParentRefusal | None:
        tunnel = self._tunnels.get(question.tunnel)
        limits = tunnel.counted_peers if tunnel is not None else None
        try:
            if limits is not None:
                limits.admit_key(question.peer, self._loop.clock())
        except LimitExceeded as exceeded:
            return ParentRefusal(exceeded.reason.value, str(exceeded))
        worker.count_peer(question.tunnel, question.peer, limits)
        return None

    # -- counts

    async def refresh(self) -> bool:
        """Get the counts of all workers; False if some did not answer in time, whose last counts are used."""
        number = next(self._reports)
        self.send(Ask(number))
        with trio.move_on_after(_REPORT_LIMIT) as scope:
            await self._wait_until(lambda: all(one.reported >= number for one in self._workers.values()))
        return not scope.cancelled_caught

    def _take_report(self, worker: WorkerHandle, report: Report) -> None:
        for number, one in report.tunnels.items():
            if number in self._tunnels:
                self._tunnels[number].show_report(worker.index, one)
        self._counts.take(worker.index, report)
        worker.reported, worker.dropped = max(worker.reported, report.number), report.dropped
        self._counters.crashed += report.crashed - worker.crashed
        worker.crashed = report.crashed
        self._notify()

    def group_of(self, counters: Counters) -> int:
        """The number of the group whose timers these are."""
        return self._counts.group_of(counters)

    @property
    def dropped_lines(self) -> int:
        """Lines and events that workers could not send."""
        return self.lost_lines + sum(worker.dropped for worker in self._workers.values())

    def lag(self) -> Histogram:
        """The lag of the event loops of all workers."""
        return self._counts.lag()

    def watch_counts(self) -> None:
        """Ask for reports at short intervals until no listener is handed over any more."""
        if any(tunnel.is_handed_over for tunnel in self._tunnels.values()):
            self.send(Ask(0))
            self._loop.call_later(_WATCH_INTERVAL, self.watch_counts)

    # -- waiting

    async def _wait_until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self._changed.wait()

    def _notify(self) -> None:
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._wake)

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()
