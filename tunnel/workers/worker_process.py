"""The process of a worker: an event loop with the tunnels that the parent has configured, without a control plane of its own.

Signals are for the parent. If it has ended, the worker drains its connections and exits.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from tunnel.child.kernel import forbid_core_dumps, name_process
from tunnel.config.model import ListenerConfig
from tunnel.errors import TargetError
from tunnel.garbage_collection import freeze_startup_objects
from tunnel.listener.generation import GenerationBuilder
from tunnel.listener.shared_resources import SharedResources, open_shared_resources
from tunnel.listener.targets import Resolved, resolve_target
from tunnel.listener.tunnel_control import REVIEW_INTERVAL, count_crash
from tunnel.log import MAX_TRACE, one_line
from tunnel.net.address import TargetAddress
from tunnel.net.holders import WORKER_NAME
from tunnel.relay.loop import Loop
from tunnel.relay.loop_lag import LoopLag
from tunnel.status.counters import Counters, timed_counters
from tunnel.status.histogram import LAG_BOUNDS, Histogram
from tunnel.workers.channel import Channel
from tunnel.workers.codec import decode_trusted
from tunnel.workers.messages import (
    Answer,
    Ask,
    ChangeLog,
    Configure,
    ExitWithParent,
    Open,
    Order,
    Report,
    Setup,
    ShowChallenge,
    ShowTargets,
    Started,
    Stop,
    Swap,
    Timers,
    TunnelOrder,
    UseTimers,
    Withdraw,
)
from tunnel.workers.outbox import Outbox, RecordLog, WorkerLog
from tunnel.workers.questions import Questions
from tunnel.workers.worker_tunnel import WorkerTunnel

if TYPE_CHECKING:  # loaded with the first thread
    from concurrent.futures import Future

CHANNEL: Final = 0  # the descriptor of the channel in a new worker
_IGNORED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT, signal.SIGPIPE)


def main() -> NoReturn:
    """Serve until the parent ends this process, or has ended."""
    forbid_core_dumps()
    name_process(WORKER_NAME)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=os.dup(CHANNEL))
    os.dup2(os.open(os.devnull, os.O_RDONLY), CHANNEL)
    loop = Loop()
    WorkerProcess(loop, sock)
    freeze_startup_objects()
    loop.run()
    os._exit(0)  # threads may still resolve names


class WorkerProcess:
    """Executes the messages of the parent."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        self._channel = Channel(loop, sock, decode_trusted, self._on_message, self._on_parent_ended)
        self._outbox = Outbox(loop, self._channel)
        self._questions = Questions(loop, self._channel)
        self._tunnels: dict[int, WorkerTunnel] = {}
        self._builders: dict[int, GenerationBuilder] = {}  # by the ID of the credentials
        self._timers: dict[int, Counters] = {}  # by group
        self._exits_with_parent = False  # else it drains first
        self._lag = Histogram(LAG_BOUNDS)
        self._loop_lag = LoopLag(loop, self._lag.add)
        self._channel.send(Started())
        self._review_later()

    def crashed(self, crash: Exception) -> None:
        """Log an unexpected exception of a review, which continues."""
        self._count_crash(crash)
        self._review_later()

    def _on_message(self, message: object, sock: socket.socket | None) -> None:
        match message:
            case Setup():
                self._set_up(message)
            case Ask():
                self._channel.send(self._report(message.number))
            case Answer():
                self._questions.answer(message.number, message.result)
            case ChangeLog():
                self._change_log(message)
            case ExitWithParent():
                self._exits_with_parent = True
            case Stop():
                self._stop()
            case Configure():
                self._configure(message)
            case Open():
                assert sock is not None
                self._tunnels[message.tunnel].serve(sock, message.name)
            case Swap():
                self._swap(message)
            case TunnelOrder(tunnel, order):
                self._obey(self._tunnels[tunnel], order)
            case Withdraw():
                self._tunnels[message.tunnel].withdraw(message.grace)
            case ShowTargets():
                self._tunnels[message.tunnel].show_targets(message.healthy)
            case ShowChallenge():
                self._tunnels[message.tunnel].show_challenge(message)
            case UseTimers():
                self._use_timers(message)

    def _set_up(self, setup: Setup) -> None:
        self._setup = setup
        self._log = WorkerLog(self._outbox, setup.omitted, is_observed=setup.is_observed)
        self._shared: SharedResources = open_shared_resources(self._loop, self._log, names_listeners=setup.names_listeners)
        self._loop.on_unowned_crash = self._count_crash
        self._crashes = Counters()
        self._watch_lag(is_observed=setup.is_observed)

    def _count_crash(self, crash: Exception) -> None:
        count_crash(crash, self._crashes, self._log)

    # -- tunnels

    def _configure(self, message: Configure) -> None:
        tunnel = self._tunnels.get(message.tunnel)
        if tunnel is not None:
            tunnel.apply(message)
            return
        record_log = RecordLog(message.tunnel, self._outbox, self._log, self._setup)
        resolve = partial(self._resolve_later, message.tunnel)
        self._tunnels[message.tunnel] = WorkerTunnel(self._shared, message, resolve, self._questions, record_log)

    def _resolve_later(self, number: int, address: TargetAddress, answer: Callable[[Resolved], object]) -> None:
        def report(future: Future[Resolved]) -> None:
            answer(future.result())

        tunnel = self._tunnels[number]
        self._loop.call_in_thread(partial(_resolve, address, tunnel.config), report, tunnel)

    def _swap(self, message: Swap) -> None:
        tunnel = self._tunnels[message.tunnel]
        if message.credentials is not None:
            self._builders[message.credentials_id] = GenerationBuilder(message.number, message.credentials)
        tunnel.credentials_id = message.credentials_id
        builder = self._builders[message.credentials_id]
        builder.number = message.number
        tunnel.swap(tunnel.build(builder), withdrawn_in=message.withdrawn_in)
        used = {one.credentials_id for one in self._tunnels.values()}
        self._builders = {number: one for number, one in self._builders.items() if number in used}

    def _obey(self, tunnel: WorkerTunnel, order: Order) -> None:
        match order:
            case Order.JUDGE_AGAIN:
                tunnel.judge_again()
            case Order.CONFIRM:
                tunnel.confirm()
            case Order.RELEASE:
                tunnel.end_listening()
            case Order.ABORT_PENDING:
                tunnel.abort_pending()
            case Order.ABORT:
                tunnel.abort()
            case Order.FORGET:
                del self._tunnels[tunnel.number]

    def _use_timers(self, message: UseTimers) -> None:
        timers = self._timers.setdefault(message.group, timed_counters())
        self._tunnels[message.tunnel].use_timers(timers)
        self._tunnels[message.tunnel].timers = message.group

    def _change_log(self, message: ChangeLog) -> None:
        self._log.change(message.omitted, is_observed=message.is_observed)
        self._watch_lag(is_observed=message.is_observed)

    def _watch_lag(self, *, is_observed: bool) -> None:
        """Measure the lag only for an observer: an idle process wakes for it."""
        if is_observed:
            self._loop_lag.start()

    def _review_later(self) -> None:
        self._loop.call_at(self._loop.clock() + REVIEW_INTERVAL, self._review, self)

    def _review(self) -> None:
        for tunnel in self._tunnels.values():
            if tunnel.generation is not None:
                tunnel.review()
        self._review_later()

    # -- reports

    def _report(self, number: int) -> Report:
        self._outbox.flush()  # the parent knows all connections that are counted
        return Report(
            number,
            {tunnel.number: tunnel.report() for tunnel in self._tunnels.values()},
            {group: _totals_of(timers) for group, timers in self._timers.items()},
            self._outbox.dropped,
            self._crashes.crashed,
            self._lag,
        )

    # -- the end

    def _stop(self) -> None:
        """Send the last report and exit."""
        self._channel.send(self._report(0))
        self._loop.call_soon(self._exit_when_sent)

    def _exit_when_sent(self) -> None:
        if self._channel.backlog:
            self._loop.call_later(0.01, self._exit_when_sent)
        else:
            self._loop.stop()

    def _on_parent_ended(self, crash: Exception | None) -> None:
        """Drain: without its parent a worker gets no new identity, and no other process may accept from its sockets."""
        if crash is not None:  # a bug: the parent starts another worker
            import traceback

            sys.stderr.write(one_line("".join(traceback.format_exception(crash)), MAX_TRACE) + "\n")
            os._exit(1)
        self._questions.fail_all()
        if self._exits_with_parent or not self._tunnels:
            self._loop.stop()
            return
        for tunnel in self._tunnels.values():
            tunnel.on_empty = self._exit_when_empty
            tunnel.end_listening()
            tunnel.abort_pending()
        self._loop.call_later(self._setup.drain_limit, self._loop.stop)
        self._exit_when_empty()

    def _exit_when_empty(self) -> None:
        if all(tunnel.is_drained for tunnel in self._tunnels.values()):
            self._loop.stop()


def _resolve(address: TargetAddress, config: ListenerConfig) -> Resolved:
    try:
        return resolve_target(address, config.resolution)
    except TargetError as error:
        return error


def _totals_of(timers: Counters) -> Timers:
    assert timers.handshake is not None
    assert timers.lifetime is not None
    return timers.handshake.totals(), timers.lifetime.totals()
