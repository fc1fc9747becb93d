"""One tunnel whose connections are in this process: it accepts them and owns their sessions, on the event loop's thread."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Set
from functools import partial
from typing import TYPE_CHECKING, Any

from tunnel.config.model import ListenerConfig
from tunnel.errors import describe_os_error
from tunnel.listener.acceptor import NewHandshake
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord, count_connection
from tunnel.listener.generation import Generation
from tunnel.listener.peer_limits import ConnectionLimits
from tunnel.listener.peer_traffic import group_by_peer
from tunnel.listener.plain_clients import PlainClients
from tunnel.listener.rate_limit import AcceptRate, RateLimit
from tunnel.listener.session import Session
from tunnel.listener.shared_resources import SharedResources
from tunnel.listener.targets import ResolveLater
from tunnel.listener.tunnel_control import TunnelControl
from tunnel.listener.withdrawal import Withdrawal
from tunnel.log import Category
from tunnel.net.accept_backoff import AcceptBackoff
from tunnel.net.owner import owner_of_peer
from tunnel.net.sockets import family_of, format_address
from tunnel.relay.handshake import Handshake
from tunnel.relay.handshake_slots import HandshakeSlots
from tunnel.relay.loop import Timer
from tunnel.status.peer_table import PeerKey, PeerTraffic
from tunnel.status.process_state import PlaintextState

if TYPE_CHECKING:  # loaded only when a certificate comes from an ACME server
    from tunnel.tls.acme_challenge import AcmeChallenges

_ACCEPTS_PER_TURN = 64  # open connections are served in between


class Tunnel(TunnelControl):
    """Accepts connections and owns their sessions."""

    def __init__(
        self,
        shared: SharedResources,
        config: ListenerConfig,
        resolve_later: ResolveLater,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(shared, config, resolve_later, clock)
        self.buffer_trimmer = shared.buffer_trimmer
        self.new_handshake: NewHandshake = Handshake  # or AcmeHandshake
        self._turns = shared.turns
        self.withdrawal = Withdrawal(self, clock)
        self.plain_clients = PlainClients(clock)
        self.peer_limits: ConnectionLimits | None = None  # as sessions use them
        self._accept_rate: AcceptRate | None = None
        self._is_accepting = False
        self._backoff = AcceptBackoff()
        self._timer: Timer | None = None  # of a pause
        self._sessions: set[Session] = set()
        self._starting: Session | None = None  # its first step runs in an event of the listener
        self.limit_peers(config)
        self.apply_config()

    def apply_config(self) -> None:
        """Apply `config` from the next connection on; connections that were counted remain so."""
        config = self.config
        self.only_user = os.geteuid() if config.is_private else None  # sockets have the effective user ID
        # Handshakes that have begun keep the slots that they have.
        self.handshakes = HandshakeSlots(self._turns, self.buffers, config.max_handshakes if config.is_server else 0)
        self._accept_rate = AcceptRate(RateLimit(config.max_rate)) if config.max_rate else None
        self.end_pause()  # by the previous rate
        self.start_accepting()
        if self.is_full():
            self._unwatch_listener()

    def limit_peers(self, config: ListenerConfig) -> None:
        """Apply the limits per peer."""
        super().limit_peers(config)
        self.peer_limits = self.counted_peers

    # -- the identity

    def swap(self, generation: Generation, *, withdrawn_in: float | None = None) -> None:
        """Use a new generation from the next handshake on; `withdrawn_in` as in the base class."""
        previous = self.generation
        super().swap(generation, withdrawn_in=withdrawn_in)
        if previous is None or previous.admission is not generation.admission:
            self.withdrawal.review_all(previous)

    def judge_again(self) -> None:
        """Judge the peers of all connections again: a policy or the configuration has changed."""
        previous = self.generation
        super().judge_again()
        if previous is not None:
            self.withdrawal.review_all(previous)

    def close_without_identity(self) -> None:
        """Close all connections, if configured: our identity is lost."""
        self.withdrawal.close_without_identity()

    def accept_challenges(self, challenges: AcmeChallenges | None) -> None:
        """Answer these ACME challenges from now on, and no others."""
        if challenges is None:
            self.new_handshake = Handshake
            return
        from tunnel.relay.acme_handshake import AcmeHandshake

        self.new_handshake = partial(AcmeHandshake, challenges=challenges)

    # -- accepting

    def serve_socket(self, sock: socket.socket) -> None:
        """Serve a connected socket as if it had been accepted."""
        sock.setblocking(False)
        self._admit(sock, sock.getpeername())

    def start_accepting(self) -> None:
        """Accept connections of the listening socket, if there is one, unless there are too many."""
        self._timer = None
        if self._listener is not None and not self._is_accepting and not self.is_full():
            self._is_accepting = True
            self.watch_listener(self._listener.socket)

    def stop_accepting(self) -> None:
        """Accept no more."""
        self._unwatch_listener()
        self.end_pause()

    def end_pause(self) -> None:
        """Cancel the end of a pause."""
        if self._timer is not None:
            self.loop.cancel(self._timer)
            self._timer = None

    def _unwatch_listener(self) -> None:
        if self._is_accepting and self._listener is not None:
            self._is_accepting = False
            self.loop.unwatch(self._listener.socket)

    def abort_pending(self) -> None:
        """Close the sessions whose relay has not begun."""
        for session in list(self._sessions):
            if not session.is_relayed:
                session.abort()

    def abort_connections(self) -> None:
        """Close all sessions."""
        for session in list(self._sessions):
            session.abort()

    def close(self) -> None:
        """Nothing to free: only the process refers to it."""

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

    @property
    def handshakes_in_progress(self) -> int:
        """How many handshakes of clients hold a slot; 0 without a limit."""
        return self.handshakes.held

    def count_traffic(self) -> tuple[int, int]:
        """Bytes of the open connections, from the accepted side to the target and in the other direction."""
        traffic = [session.traffic for session in self._sessions]
        return sum(forwarded for forwarded, _ in traffic), sum(returned for _, returned in traffic)

    def count_plain(self) -> int:
        """How many connections of plain clients are open."""
        return sum(session.is_plaintext for session in self._sessions) if self.counters.plaintext else 0

    def count_accepted(self) -> int:
        """How many connections were accepted."""
        return self.counters.accepted

    def traffic_by_peer(self) -> Iterator[tuple[PeerKey, PeerTraffic]]:
        """Yield the traffic of the open connections by peer; a peer can occur several times."""
        return group_by_peer(self.config.name, self._sessions)

    def plaintext_state(self) -> PlaintextState | None:
        """Return what is known about plain clients; None if they are refused."""
        return self.plain_clients.state(self.count_plain(), self.counters.plaintext) if self.config.plaintext else None

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
        for _ in range(self.accept_limit()):
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
                self._unwatch_listener()
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
                time=time.time(),
                listener_name=self.config.name,
                target_name=self.targets.name,
                reason=reason,
                detail=detail,
            )
        )

    def _record(self, record: ConnectionRecord) -> None:
        count_connection(self.counters, record)
        self.announce(record)

    def accept_limit(self) -> int:
        """The most connections to accept in this turn."""
        return _ACCEPTS_PER_TURN

    def is_full(self) -> bool:
        """Whether no more connections are accepted for now."""
        return 0 < self.config.max_concurrent_conns <= len(self._sessions)

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
        self._unwatch_listener()
        self._timer = self.loop.call_at(self.loop.clock() + pause, self.start_accepting, self)

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
            self.start_accepting()
        self.report_drained()
