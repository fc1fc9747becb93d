"""One tunnel: a listener, its open connections, and the generation in use. It runs on the thread of the event loop."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Set
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tunnel.config.model import ListenerConfig
from tunnel.errors import IdentityLoss, describe_os_error
from tunnel.lazy_dataclass import replace
from tunnel.listener.acceptor import NewHandshake
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord, count_connection
from tunnel.listener.generation import Generation
from tunnel.listener.hand_over import HandOver
from tunnel.listener.identity_state import IdentityState
from tunnel.listener.peer_limits import ConnectionLimits, PeerLimits
from tunnel.listener.peer_traffic import group_by_peer
from tunnel.listener.plain_clients import PlainClients, describe_plaintext
from tunnel.listener.rate_limit import AcceptRate, RateLimit
from tunnel.listener.session import Session
from tunnel.listener.shared_resources import SharedResources
from tunnel.listener.targets import ResolveLater, Targets
from tunnel.listener.withdrawal import Withdrawal, settings_of
from tunnel.log import MAX_TRACE, Category, Log, escape
from tunnel.net.accept_backoff import AcceptBackoff
from tunnel.net.holders import ListeningPorts
from tunnel.net.listen import Listener, Successor
from tunnel.net.owner import owner_of_peer
from tunnel.net.sockets import family_of, format_address
from tunnel.relay.handshake import Handshake
from tunnel.relay.handshake_slots import HandshakeSlots
from tunnel.relay.loop import Timer
from tunnel.status.counters import Counters, TunnelGauges
from tunnel.status.peer_table import PeerKey, PeerTraffic
from tunnel.status.process_state import PlaintextState

REVIEW_INTERVAL: Final = 5.0  # seconds between reviews of an identity: the wall clock may jump

if TYPE_CHECKING:  # loaded only when a certificate comes from an ACME server
    from tunnel.tls.acme_challenge import AcmeChallenges


class Tunnel:
    """Accepts connections and owns their sessions."""

    accepts_per_turn: ClassVar[int] = 64  # open connections are served in between

    def __init__(
        self,
        shared: SharedResources,
        config: ListenerConfig,
        resolve_later: ResolveLater,
        clock: Callable[[], float] = time.time,
        *,
        counters: Counters | None = None,
    ) -> None:
        self.loop = shared.loop
        fields = f"listener={escape(config.name)}" if shared.names_listeners else ""
        self.log = shared.log.with_fields(fields) if fields else shared.log
        self.buffers = shared.buffers
        self.buffer_trimmer = shared.buffer_trimmer
        self.connection_log = shared.open_connection_log(self.log, fields)
        self.counters = counters or Counters()
        self.new_handshake: NewHandshake = Handshake  # or AcmeHandshake
        self._turns = shared.turns
        self._observers = shared.observers
        self.targets = self.open_targets(config, resolve_later)
        self._clock = clock
        self._configure(config)
        self.withdrawal = Withdrawal(self, clock)
        self._identity = IdentityState(clock, self.loop.clock)
        self._identity_error = ""  # at the last review
        self.plain_clients = PlainClients(clock)
        self.peer_limits: ConnectionLimits | None = None  # as sessions use them
        self.counted_peers: PeerLimits | None = None
        self._accept_rate: AcceptRate | None = None
        self._listener: Listener | None = None
        self.name = ""  # the address of the listener
        self._is_accepting = False
        self._backoff = AcceptBackoff()
        self._timer: Timer | None = None
        self._is_draining = False
        self._hand_over: HandOver | None = None  # from the drain on, if the address has another listener
        self._sessions: set[Session] = set()
        self._starting: Session | None = None  # its first step runs in an event of the listener
        self.on_empty: Callable[[], None] | None = None  # called when everything is closed
        self.on_identity_error: Callable[[str], None] | None = None  # called at each change, with "" if the identity is usable
        self.apply_limits()

    def open_targets(self, config: ListenerConfig, resolve_later: ResolveLater) -> Targets:
        """Create the targets; raises as `Targets` does."""
        return Targets(config, self.loop, self.log, resolve_later)

    def reconfigure(self, config: ListenerConfig) -> None:
        """Use another configuration from the next connection on; raises as `Targets.use` does."""
        self.targets.use(config)
        previous = self.config
        self._configure(config)
        self.apply_limits()
        if settings_of(config) != settings_of(previous):
            self.judge_again()
        if self.is_full():
            self._stop_accepting()
        if config.plaintext != previous.plaintext:
            self.warn_about_plaintext()

    def warn_about_plaintext(self) -> None:
        """Log a warning if the configuration permits plaintext."""
        if warning := describe_plaintext(self.config):
            self.log.write(f"warning: {warning}")

    def _configure(self, config: ListenerConfig) -> None:
        self.only_user = os.geteuid() if config.is_private else None  # sockets have the effective user ID
        # Handshakes that have begun keep the slots that they have.
        self.handshakes = HandshakeSlots(self._turns, self.buffers, config.max_handshakes if config.is_server else 0)
        self.config = config

    # -- the identity

    @property
    def generation(self) -> Generation | None:
        """The newest generation."""
        return self._identity.generation

    def swap(self, generation: Generation, *, withdrawn_in: float | None = None) -> None:
        """Use a new generation from the next handshake on.

        If its identity is withdrawn already, `withdrawn_in` is the rest of the grace period in seconds.
        """
        previous = self._identity.generation
        self._identity.use(generation)
        self._identity.confirm()
        if withdrawn_in is not None:
            self._identity.withdraw(max(withdrawn_in, 0))
        self.review()
        if previous is None or previous.admission is not generation.admission:
            self.withdrawal.review_all(previous)

    def judge_again(self) -> None:
        """Judge the peers of all connections again: a policy or the configuration has changed."""
        previous = self._identity.generation
        if previous is not None:
            self._identity.use(replace(previous))  # handshakes notice a new object
            self.withdrawal.review_all(previous)

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
                self.withdrawal.close_without_identity()
        return None if why else self._identity.generation

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

    # -- accepting

    def open(self, listener: Listener) -> None:
        """Accept connections from now on."""
        self._listener = listener
        self._is_draining = False
        self.name = str(listener)
        self.warn_about_plaintext()
        if listener.replaced_pid is not None:
            self.log.info(f"took over listener of another process: listen={self.name} pid={listener.replaced_pid or 'unknown'}")
        self._resume()

    def accept_challenges(self, challenges: AcmeChallenges | None) -> None:
        """Answer these ACME challenges from now on, and no others."""
        if challenges is None:
            self.new_handshake = Handshake
            return
        from tunnel.relay.acme_handshake import AcmeHandshake

        self.new_handshake = partial(AcmeHandshake, challenges=challenges)

    def use_timers(self, timers: Counters) -> None:
        """Measure durations from now on, with timers that the listeners of a monitor share."""
        from tunnel.status.histogram import ConnectionDurations

        self.counters.handshake, self.counters.lifetime = timers.handshake, timers.lifetime
        self.counters.durations = ConnectionDurations()

    def apply_limits(self) -> None:
        """Apply the limits of `config`, at the start and after a change; connections that were counted remain so."""
        config = self.config
        self._accept_rate = AcceptRate(RateLimit(config.max_rate)) if config.max_rate else None
        self.limit_peers(config)
        if self._timer is not None:  # a pause by the previous rate
            self.loop.cancel(self._timer)
        self._resume()

    def limit_peers(self, config: ListenerConfig) -> None:
        """Apply the limits per peer."""
        if not config.has_peer_limits:
            self.counted_peers = None
        elif self.counted_peers is None:
            self.counted_peers = PeerLimits(config.max_conns_per_peer, config.max_rate_per_peer)
        else:
            self.counted_peers.change(config.max_conns_per_peer, config.max_rate_per_peer)
        self.peer_limits = self.counted_peers

    def serve_socket(self, sock: socket.socket) -> None:
        """Serve a connected socket as if it had been accepted."""
        sock.setblocking(False)
        self._admit(sock, sock.getpeername())

    def release(self) -> Listener | None:
        """Stop accepting, and return the listening socket if there is one; sessions continue."""
        self._stop_accepting()
        if self._timer is not None:
            self.loop.cancel(self._timer)
            self._timer = None
        listener, self._listener = self._listener, None
        return listener

    def drain(self, ports: ListeningPorts | None = None) -> None:
        """Stop accepting, and close sessions whose relay has not begun; `ports` are those of this moment.

        If the address has another listener, those sessions continue, and the listener is closed when its queue is empty.
        """
        if self._is_draining:
            return
        self._is_draining = True
        listener = self._listener
        successor = listener.find_successor(ports) if listener is not None else Successor.NONE
        if listener is not None and successor in (Successor.SAME_PATH, Successor.SAME_PORT):
            self._hand_over = HandOver(
                self.loop, listener, self.log, owner=self, count_accepted=self._count_accepted, close=self._close_listener
            )
            self._hand_over.start(successor)
            return
        self._close_listener()
        if successor is Successor.NONE:
            self.abort_pending()

    def abort_pending(self) -> None:
        """Close the sessions whose relay has not begun."""
        for session in list(self._sessions):
            if not session.is_relayed:
                session.abort()

    def abort(self) -> int:
        """Close all sessions, and a listener that is handed over; return how many sessions there were."""
        if self._hand_over is not None and self._listener is not None:
            self._hand_over.end()
        count = len(self._sessions)
        for session in list(self._sessions):
            session.abort()
        return count

    def close(self) -> None:
        """It has no connections, and gets no more."""

    @property
    def connections(self) -> Set[Session]:
        """The open connections, also those whose relay has not begun."""
        return self._sessions

    @property
    def is_drained(self) -> bool:
        """Whether the listener and all sessions are closed."""
        return self._listener is None and not self._sessions

    def __len__(self) -> int:
        return len(self._sessions)

    def read_counters(self) -> Counters:
        """The counters of this moment; `counters` are those of this process."""
        return self.counters

    @property
    def handshakes_in_progress(self) -> int:
        """How many handshakes of clients hold a slot; 0 without a limit."""
        return self.handshakes.held

    def gauges(self) -> TunnelGauges:
        """Return the numbers that are not counters: open connections, bytes so far, generation and expiry."""
        traffic = [session.traffic for session in self._sessions]
        generation = self._identity.generation
        ends = generation.expires if generation else None
        lists_end = generation.lists_expire if generation else None
        return TunnelGauges(
            opened=len(self._sessions),
            forwarded=self.counters.forwarded + sum(forwarded for forwarded, _ in traffic),
            returned=self.counters.returned + sum(returned for _, returned in traffic),
            generation=generation.number if generation else 0,
            expiry=int(ends.timestamp()) if ends else None,
            is_identity_usable=not self.identity_error,
            lists_expiry=int(lists_end.timestamp()) if lists_end else None,
            plain_opened=self._plain_opened(),
        )

    def traffic_by_peer(self) -> Iterator[tuple[PeerKey, PeerTraffic]]:
        """Yield the traffic of the open connections by peer; a peer can occur several times."""
        return group_by_peer(self.config.name, self._sessions)

    def plaintext_state(self) -> PlaintextState | None:
        """Return what is known about plain clients; None if they are refused."""
        return self.plain_clients.state(self._plain_opened(), self.counters.plaintext) if self.config.plaintext else None

    def _plain_opened(self) -> int:
        return sum(session.is_plaintext for session in self._sessions) if self.counters.plaintext else 0

    def crashed(self, crash: Exception) -> None:
        """Log an unexpected exception while accepting, and end the session that was starting; accepting continues."""
        session, self._starting = self._starting, None
        if session is not None:
            session.crashed(crash)
        else:
            self.count_crash(crash)

    def accept(self, _events: int) -> None:
        """Accept connections that wait."""
        assert self._listener is not None
        for _ in range(self.accepts_per_turn):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if (pause := self._backoff.pause_after(error)) is not None:
                    self._report_accept_error(error)
                    self._pause_accepting(pause)
                return
            self._backoff.reset()
            self._admit(sock, address)
            if self._accept_rate is not None and (pause := self._accept_rate.spend(self.loop.clock())):
                self._pause_accepting(pause)
                return
            if self.is_full():
                self._stop_accepting()
                return

    def _admit(self, sock: socket.socket, address: Any) -> None:
        self.counters.accepted += 1
        source = format_address(family_of(sock), address)
        if self.only_user is not None and (user := self._wrong_user(sock, address)):
            detail = f"it is from {user}; expected user {self.only_user}"
            self._close_at_once(sock, source, ConnectionOutcome.WRONG_LOCAL_USER, "another-user", detail)
            return
        if self.review() is None and self.config.plaintext is None:  # plain clients do not need our identity
            self._close_at_once(sock, source, ConnectionOutcome.NO_IDENTITY)
            return
        session = Session(self, sock, address, source)
        self._sessions.add(session)
        self._starting = session
        session.start()
        self._starting = None

    def _wrong_user(self, sock: socket.socket, address: Any) -> str:
        """Describe the local user of the peer if it may not connect, else return ""."""
        user = owner_of_peer(sock, address)
        if user == self.only_user:
            return ""
        return "an unknown user (the peer has already closed)" if user is None else f"user {user}"

    def _close_at_once(
        self, sock: socket.socket, source: str, outcome: ConnectionOutcome, reason: str = "", detail: str = ""
    ) -> None:
        sock.close()
        self._record(
            ConnectionRecord(
                outcome,
                self.config.is_server,
                self.name,
                source,
                seconds=0.0,
                listener_name=self.config.name,
                target_name=self.targets.name,
                reason=reason,
                detail=detail,
            )
        )

    def _record(self, record: ConnectionRecord) -> None:
        count_connection(self.counters, record)
        self.announce(record)

    def announce(self, record: ConnectionRecord) -> None:
        """Log and observe the end of a connection that is counted."""
        self.connection_log.write_end(record)
        for observe in self._observers:
            observe(record)

    def is_full(self) -> bool:
        """Whether no more connections are accepted for now."""
        return 0 < self.config.max_concurrent_conns <= len(self._sessions)

    def _stop_accepting(self) -> None:
        if self._is_accepting and self._listener is not None:
            self._is_accepting = False
            self.loop.unwatch(self._listener.socket)

    def _resume(self) -> None:
        self._timer = None
        if self._listener is not None and not self._is_accepting and not self.is_full():
            self._is_accepting = True
            self.watch_listener(self._listener.socket)

    def watch_listener(self, sock: socket.socket) -> None:
        """Accept when connections wait."""
        self.loop.watch_listener(sock, self.accept, self)

    def _report_accept_error(self, error: OSError) -> None:
        """Log and count an error such as too many open files, which would occur again at once."""
        self.counters.accept_errors += 1
        why = describe_os_error(error)
        self.log.write(f"error accepting connection: accept {self._listener}: {why}", Category.CONN_ERRORS)

    def _pause_accepting(self, pause: float) -> None:
        """Leave further connections in the kernel's queue for so many seconds."""
        self._stop_accepting()
        self._timer = self.loop.call_at(self.loop.clock() + pause, self._resume, self)

    def _close_listener(self) -> None:
        listener = self.release()
        if listener is not None:
            listener.close()
        self._report_drained()

    def _report_drained(self) -> None:
        if self.is_drained and self.on_empty is not None:
            self.on_empty()

    def _count_accepted(self) -> int:
        return self.counters.accepted

    # -- what sessions need

    def end_session(self, session: Session, record: ConnectionRecord) -> None:
        """Record the end of a session and forget it."""
        try:
            self._record(record)
        finally:  # else a bug in a log line would keep the session, and its place among the open connections, for ever
            self._forget(session)

    def _forget(self, session: Session) -> None:
        self._sessions.discard(session)
        self.withdrawal.forget(session)
        if self._timer is None:
            self._resume()
        self._report_drained()

    def count_crash(self, crash: Exception) -> None:
        """Log and count an unexpected exception."""
        count_crash(crash, self.counters, self.log)


def count_crash(crash: Exception, counters: Counters, log: Log) -> None:
    """Log and count an unexpected exception, with its traceback on one line."""
    import traceback

    counters.crashed += 1
    log.write(f"internal error: {escape(''.join(traceback.format_exception(crash)), MAX_TRACE)}")
