"""A tunnel in a worker: it has the connections; the parent has the listener, the log, the limits and the health of targets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from tunnel.authz.peer import Peer
from tunnel.authz.rules import PolicyRule
from tunnel.config.model import HealthCheck, ListenerConfig
from tunnel.errors import TargetFault, TunnelError
from tunnel.listener.generation import Generation, GenerationBuilder, plan_generations
from tunnel.listener.shared_resources import SharedResources
from tunnel.listener.target_pool import PooledTarget, TargetPool
from tunnel.listener.targets import ResolveLater, Targets
from tunnel.listener.tunnel import Tunnel
from tunnel.log import escape
from tunnel.net.listen import Listener
from tunnel.status.counters import Counters
from tunnel.workers.messages import Configure, Drained, ShowChallenge, TargetResult, TunnelReport
from tunnel.workers.outbox import RecordLog
from tunnel.workers.questions import Questions, RemoteLimits

if TYPE_CHECKING:  # loaded only when a certificate comes from an ACME server
    from tunnel.tls.acme_challenge import AcmeChallenges

_BUSY_ACCEPTS: Final = 8  # several in a row cost less than one per turn, because the code stays in the caches of the processor


class WorkerTunnel(Tunnel):
    """The connections of one listener in this worker."""

    def __init__(
        self,
        shared: SharedResources,
        message: Configure,
        resolve_later: ResolveLater,
        questions: Questions,
        record_log: RecordLog,
    ) -> None:
        self.number = message.tunnel
        self.credentials_id = 0
        self.timers: int | None = None
        self._questions = questions
        self._accepts = message.accepts
        self._is_released = False
        self._challenges: AcmeChallenges | None = None
        super().__init__(shared, message.config, resolve_later)
        self.connection_log = self.record_log = record_log
        self.on_empty = self._report_empty

    def apply(self, message: Configure) -> None:
        """Use another configuration from the next connection on."""
        self._accepts = message.accepts
        self.reconfigure(message.config)

    def build(self, builder: GenerationBuilder) -> Generation:
        """Build a generation; raises IdentityError."""
        config = self.config
        ask = partial(self._ask_policy, config.connect_timeout)
        policy = PolicyRule(config.access.policy.query, ask) if config.access.policy is not None else None
        return builder.build(plan_generations(config, policy, self._warn), self.generation)

    def serve(self, sock: socket.socket, name: str) -> None:
        """Accept connections from a socket of the parent."""
        self._is_released = False
        self.open(Listener(sock, is_inherited=True))
        self.name = name

    def end_listening(self) -> None:
        """Stop accepting, and report when all connections have ended."""
        self._is_released = True
        if (listener := self.release()) is not None:
            listener.close()
        self._report_empty()

    def show_targets(self, healthy: Mapping[str, tuple[bool, bool]]) -> None:
        """The parent has decided which targets are healthy, and which of them have failed the last time."""
        for target in self.targets.pool.targets:
            target.is_healthy, is_failing = healthy.get(target.route.target_name, (True, False))
            target.error = "failed" if is_failing else ""

    def show_challenge(self, message: ShowChallenge) -> None:
        """Answer this ACME challenge from now on, or none."""
        from tunnel.tls.acme_challenge import AcmeChallenges

        if self._challenges is None:
            self._challenges = AcmeChallenges()
            self.accept_challenges(self._challenges)
        self._challenges.show(message.domain, message.presented)

    def report(self) -> TunnelReport:
        """The counts of this moment."""
        gauges = self.gauges()
        counters = Counters()
        counters.add(self.counters)
        counters.handshake = counters.lifetime = None
        counters.durations = self.counters.durations
        return TunnelReport(
            counters,
            gauges.opened,
            gauges.forwarded,
            gauges.returned,
            self.plaintext_state(),
            self.handshakes_in_progress,
            tuple(self.traffic_by_peer()),
            {target.route.target_name: target.opened for target in self.targets.pool.targets},
            self.timers,
        )

    # -- what differs from a tunnel without a parent

    def open_targets(self, config: ListenerConfig, resolve_later: ResolveLater) -> Targets:
        """Create the targets, whose health the parent decides."""
        new_pool = partial(_ReplicatedPool, self.number, self._questions.channel.send)
        return Targets(config, self.loop, self.log, resolve_later, new_pool)

    def limit_peers(self, config: ListenerConfig) -> None:
        """Ask the parent, which counts for all workers."""
        self.peer_limits = RemoteLimits(self._questions, self.number) if config.has_peer_limits else None

    def watch_listener(self, sock: socket.socket) -> None:
        """Accept when connections wait and this worker is the first in the kernel's list."""
        self.loop.watch_shared_listener(sock, self.accept, self)

    def accept(self, events: int) -> None:
        """Accept, and let another worker wake for the next connection."""
        super().accept(events)
        if self._is_accepting and self._listener is not None:
            self.watch_listener(self._listener.socket)

    def accept_limit(self) -> int:
        """One if this worker was idle, because another one may be idle too; some if it has other events to handle."""
        return 1 if self.loop.batch is None else _BUSY_ACCEPTS

    def is_full(self) -> bool:
        """Whether this worker has its share of the connections."""
        return not self._accepts or super().is_full()

    def report_identity(self, error: str, *, is_closing: bool) -> None:
        """The parent logs it."""
        self._identity_error = error

    def warn_about_plaintext(self) -> None:
        """The parent logs it."""

    def _report_empty(self) -> None:
        if self._is_released and self.is_drained:
            self.record_log.flush()
            self._questions.channel.send(Drained(self.number, self.report()))

    def _ask_policy(self, limit: float, peer: Peer) -> bool:
        return self._questions.ask_policy(self.number, peer.leaf, limit)

    def _warn(self, warning: str) -> None:
        """Log a warning of a handshake, which may run on a thread of its own."""
        self.loop.call_from_thread(partial(self.log.write, f"warning: {escape(warning)}"))


class _ReplicatedPool(TargetPool):
    """A pool whose parent counts results and decides which targets are healthy."""

    def __init__(
        self, tunnel: int, send: Callable[[TargetResult], None], health: HealthCheck, log: Callable[[str], object]
    ) -> None:
        self._tunnel = tunnel
        self._send = send
        super().__init__((), health, log)

    def note_success(self, target: PooledTarget) -> None:
        """Report a success, unless it changes nothing."""
        if target.error or not target.is_healthy:
            self._send(TargetResult(self._tunnel, target.route.target_name, None))

    def note_failure(self, target: PooledTarget, error: str) -> None:
        """Report a failure."""
        self._send(TargetResult(self._tunnel, target.route.target_name, error))

    def note_result(self, target: PooledTarget, error: TunnelError | None = None) -> None:
        """Report the result of the only target."""
        if error is None:
            self.note_success(target)
        elif getattr(error, "reason", None) is not TargetFault.EXHAUSTED:
            self.note_failure(target, str(error))

    def review(self) -> None:
        """The parent logs it."""
