"""One tunnel as the control plane uses it: configuration, targets, identity and listening socket.

Its connections are in this process (`Tunnel`), or in workers.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from tunnel.config.model import ListenerConfig
from tunnel.errors import IdentityLoss
from tunnel.lazy_dataclass import replace
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.listener.generation import Generation
from tunnel.listener.hand_over import HandOver
from tunnel.listener.identity_state import IdentityState
from tunnel.listener.peer_limits import PeerLimits
from tunnel.listener.plain_clients import describe_plaintext
from tunnel.listener.shared_resources import SharedResources
from tunnel.listener.targets import ResolveLater, Targets
from tunnel.listener.withdrawal import settings_of
from tunnel.log import MAX_TRACE, Log, escape
from tunnel.net.holders import ListeningPorts
from tunnel.net.listen import Listener, Successor
from tunnel.status.counters import Counters, TunnelGauges
from tunnel.status.peer_table import PeerKey, PeerTraffic
from tunnel.status.process_state import PlaintextState

if TYPE_CHECKING:  # loaded only when a certificate comes from an ACME server
    from tunnel.tls.acme_challenge import AcmeChallenges

REVIEW_INTERVAL: Final = 5.0  # seconds between reviews of an identity: the wall clock may jump


class TunnelControl(ABC):
    """The part of a tunnel that does not depend on where its connections are."""

    def __init__(
        self,
        shared: SharedResources,
        config: ListenerConfig,
        resolve_later: ResolveLater,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.loop = shared.loop
        fields = f"listener={escape(config.name)}" if shared.names_listeners else ""
        self.log = shared.log.with_fields(fields) if fields else shared.log
        self.buffers = shared.buffers
        self.connection_log = shared.open_connection_log(self.log, fields)
        self.counters = Counters()
        self._observers = shared.observers
        self.config = config
        self.targets = self.open_targets(config, resolve_later)
        self._identity = IdentityState(clock, self.loop.clock)
        self._identity_error = ""  # at the last review
        self.counted_peers: PeerLimits | None = None
        self._listener: Listener | None = None
        self.name = ""  # the address of the listener
        self._is_draining = False
        self._hand_over: HandOver | None = None  # from the drain on, if the address has another listener
        self.on_empty: Callable[[], None] | None = None  # called when everything is closed
        self.on_identity_error: Callable[[str], None] | None = None  # called at each change, with "" if the identity is usable

    def open_targets(self, config: ListenerConfig, resolve_later: ResolveLater) -> Targets:
        """Create the targets; raises as `Targets` does."""
        return Targets(config, self.loop, self.log, resolve_later)

    def reconfigure(self, config: ListenerConfig) -> None:
        """Use another configuration from the next connection on; raises as `Targets.use` does."""
        self.targets.use(config)
        previous, self.config = self.config, config
        self.limit_peers(config)
        self.apply_config()
        if settings_of(config) != settings_of(previous):
            self.judge_again()
        if config.plaintext != previous.plaintext:
            self.warn_about_plaintext()

    @abstractmethod
    def apply_config(self) -> None:
        """Apply `config` where the connections are, before their peers are judged again."""

    def limit_peers(self, config: ListenerConfig) -> None:
        """Apply the limits per peer."""
        if not config.has_peer_limits:
            self.counted_peers = None
        elif self.counted_peers is None:
            self.counted_peers = PeerLimits(config.max_conns_per_peer, config.max_rate_per_peer)
        else:
            self.counted_peers.change(config.max_conns_per_peer, config.max_rate_per_peer)

    def warn_about_plaintext(self) -> None:
        """Log a warning if the configuration permits plaintext."""
        if warning := describe_plaintext(self.config):
            self.log.write(f"warning: {warning}")

    # -- the identity

    @property
    def generation(self) -> Generation | None:
        """The newest generation."""
        return self._identity.generation

    def swap(self, generation: Generation, *, withdrawn_in: float | None = None) -> None:
        """Use a new generation from the next handshake on.

        If its identity is withdrawn already, `withdrawn_in` is the rest of the grace period in seconds.
        """
        self._identity.use(generation)
        self._identity.confirm()
        if withdrawn_in is not None:
            self._identity.withdraw(max(withdrawn_in, 0))
        self.review()

    def judge_again(self) -> None:
        """Judge the peers of all connections again: a policy or the configuration has changed."""
        if (previous := self._identity.generation) is not None:
            self._identity.use(replace(previous))  # handshakes notice a new object

    def withdraw(self, grace: float) -> None:
        """Stop using the identity `grace` seconds after the first call."""
        self._identity.withdraw(grace)

    def confirm(self) -> None:
        """Cancel `withdraw`."""
        self._identity.confirm()
        self.review()

    def review(self) -> Generation | None:
        """Return the generation, or None if its identity is not usable now; log each change of that."""
        if not self._identity_error and self._identity.is_valid:
            return self._identity.generation
        why = self._identity.why_unusable
        error = why or self._identity.why_refused
        if error != self._identity_error:
            self.report_identity(error, is_closing=bool(why))
            if why:
                self.close_without_identity()
        return None if why else self._identity.generation

    @abstractmethod
    def close_without_identity(self) -> None:
        """Close all connections, if configured: our identity is lost."""

    @property
    def identity_error(self) -> str:
        """Why the identity is not valid now; "" if it is."""
        return self._identity.why_unusable or self._identity.why_refused

    @property
    def withdrawn_in(self) -> float | None:
        """Seconds until a withdrawn identity is no longer used; None if it is not withdrawn."""
        return self._identity.withdrawn_in

    @property
    def identity_loss(self) -> tuple[IdentityLoss, str] | None:
        """Why the identity can be used no more, as a reason and as a message; None if it can be used."""
        return self._identity.loss

    def report_identity(self, error: str, *, is_closing: bool) -> None:
        """Log a change of the identity's state."""
        if not error:
            self.log.info("identity is valid: accepting new connections")
        elif is_closing:
            self.log.write(f"{error}; closing new connections until a valid identity is available")
        else:
            self.log.write(f"{error}; peers that verify it refuse new connections until a valid certificate is loaded")
        self._identity_error = error
        if self.on_identity_error is not None:
            self.on_identity_error(error)

    @abstractmethod
    def accept_challenges(self, challenges: AcmeChallenges | None) -> None:
        """Answer these ACME challenges from now on, and no others."""

    # -- accepting

    def open(self, listener: Listener) -> None:
        """Accept connections from now on."""
        self._listener = listener
        self._is_draining = False
        self.name = str(listener)
        self.warn_about_plaintext()
        if listener.replaced_pid is not None:
            self.log.info(f"took over listener of another process: listen={self.name} pid={listener.replaced_pid or 'unknown'}")
        self.start_accepting()

    @abstractmethod
    def start_accepting(self) -> None:
        """Accept connections of the listening socket, if there is one."""

    @abstractmethod
    def stop_accepting(self) -> None:
        """Accept no more; the listening socket stays open."""

    def release(self) -> Listener | None:
        """Stop accepting, and return the listening socket if there is one; connections continue."""
        self.stop_accepting()
        listener, self._listener = self._listener, None
        return listener

    def drain(self, ports: ListeningPorts | None = None) -> None:
        """Stop accepting, and close connections whose relay has not begun; `ports` are those of this moment.

        If the address has another listener, those connections continue, and the listener is closed when its queue is empty.
        """
        if self._is_draining:
            return
        self._is_draining = True
        listener = self._listener
        successor = listener.find_successor(ports) if listener is not None else Successor.NONE
        if listener is not None and successor in (Successor.SAME_PATH, Successor.SAME_PORT):
            self._hand_over = HandOver(
                self.loop, listener, self.log, owner=self, count_accepted=self.count_accepted, close=self._close_listener
            )
            self._hand_over.start(successor)
            return
        self._close_listener()
        if successor is Successor.NONE:
            self.abort_pending()

    @property
    def is_handed_over(self) -> bool:
        """Whether another process gets new connections to the address, while those in the queue of this one are accepted."""
        return self._hand_over is not None and self._listener is not None

    @abstractmethod
    def abort_pending(self) -> None:
        """Close the connections whose relay has not begun."""

    def abort(self) -> int:
        """Close all connections, and a listener that is handed over; return how many connections there were."""
        count = len(self)
        if self._hand_over is not None and self._listener is not None:
            self._hand_over.end()
        self.abort_connections()
        return count

    @abstractmethod
    def abort_connections(self) -> None:
        """Close all connections."""

    def _close_listener(self) -> None:
        listener = self.release()
        if listener is not None:
            listener.close()
        self.report_drained()

    def report_drained(self) -> None:
        """Call `on_empty` if everything is closed."""
        if self.is_drained and self.on_empty is not None:
            self.on_empty()

    @property
    @abstractmethod
    def is_drained(self) -> bool:
        """Whether the listener and all connections are closed."""

    @abstractmethod
    def close(self) -> None:
        """Free what else refers to it; it has no connections, and gets no more."""

    # -- connections

    @abstractmethod
    def __len__(self) -> int:
        """How many connections are open."""

    def use_timers(self, timers: Counters) -> None:
        """Measure durations from now on, with timers that the listeners of a monitor share."""
        from tunnel.status.histogram import ConnectionDurations

        self.counters.handshake, self.counters.lifetime = timers.handshake, timers.lifetime
        self.counters.durations = ConnectionDurations()

    def announce(self, record: ConnectionRecord) -> None:
        """Log and observe the end of a connection that is counted."""
        self.connection_log.write_end(record)
        for observe in self._observers:
            observe(record)

    def read_counters(self) -> Counters:
        """The counters of this moment; `counters` are those of this process."""
        return self.counters

    @property
    @abstractmethod
    def handshakes_in_progress(self) -> int:
        """How many handshakes of clients hold a slot; 0 without a limit."""

    @abstractmethod
    def count_traffic(self) -> tuple[int, int]:
        """Bytes of connections that `counters` do not have, from the accepted side to the target and in the other direction."""

    @abstractmethod
    def count_plain(self) -> int:
        """How many connections of plain clients are open."""

    @abstractmethod
    def count_accepted(self) -> int:
        """How many connections were accepted."""

    @abstractmethod
    def traffic_by_peer(self) -> Iterator[tuple[PeerKey, PeerTraffic]]:
        """Yield the traffic of the open connections by peer; a peer can occur several times."""

    @abstractmethod
    def plaintext_state(self) -> PlaintextState | None:
        """What is known about plain clients; None if they are refused."""

    def gauges(self) -> TunnelGauges:
        """Return the numbers that are not counters: open connections, bytes so far, generation and expiry."""
        forwarded, returned = self.count_traffic()
        generation = self._identity.generation
        ends = generation.expires if generation else None
        lists_end = generation.lists_expire if generation else None
        return TunnelGauges(
            opened=len(self),
            forwarded=self.counters.forwarded + forwarded,
            returned=self.counters.returned + returned,
            generation=generation.number if generation else 0,
            expiry=int(ends.timestamp()) if ends else None,
            is_identity_usable=not self.identity_error,
            lists_expiry=int(lists_end.timestamp()) if lists_end else None,
            plain_opened=self.count_plain(),
        )

    def crashed(self, crash: Exception) -> None:
        """Log an unexpected exception of the hand-over."""
        self.count_crash(crash)

    def count_crash(self, crash: Exception) -> None:
        """Log and count an unexpected exception."""
        count_crash(crash, self.counters, self.log)


def count_crash(crash: Exception, counters: Counters, log: Log) -> None:
    """Log and count an unexpected exception, with its traceback on one line."""
    import traceback

    counters.crashed += 1
    log.write(f"internal error: {escape(''.join(traceback.format_exception(crash)), MAX_TRACE)}")
