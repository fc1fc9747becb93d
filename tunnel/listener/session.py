"""One connection, from accept to close: its steps up to the relay, and the record of how it ended.

The steps are a generator: it yields what it waits for, receives the result, and has every failure raised where it waits.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from tunnel.authz.authorizer import Admitted, permit_plaintext
from tunnel.authz.peer import Peer
from tunnel.config.model import ListenerConfig, Plaintext
from tunnel.errors import LimitExceeded, PeerDenied, TargetError, TargetFault, TlsError, TlsFault, WireError
from tunnel.listener.connection_log import ConnectionLog, show_address
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.listener.failover import AttemptError, try_targets
from tunnel.listener.generation import Generation
from tunnel.listener.peer_limits import ConnectionLimits
from tunnel.listener.plain_clients import PlainClients, check_plaintext, may_be_plain
from tunnel.listener.target_pool import PooledTarget
from tunnel.listener.targets import Lookup, Targets
from tunnel.listener.withdrawal import Withdrawal
from tunnel.log_limit import source_of
from tunnel.net.race import Attempt
from tunnel.relay.buffer_trimmer import BufferTrimmer
from tunnel.relay.close_reason import CloseReason
from tunnel.relay.dial import Dial
from tunnel.relay.handshake import Handshake, HandshakeResult, OpenEnd
from tunnel.relay.handshake_slots import HandshakeSlots
from tunnel.relay.linger import Linger
from tunnel.relay.loop import ENDING, HANGUP, IN, OUT, Loop
from tunnel.relay.proxy_connect import ProxyConnect
from tunnel.relay.proxy_header import HeaderWriter, build_header
from tunnel.relay.relay import Relay
from tunnel.relay.step import AcmeChallengeAnswered, ClosedWithoutData, NoUsableIdentity, Step, StepOwner, StepRunner, Steps
from tunnel.relay.thread_call import ThreadCall
from tunnel.status.counters import Counters
from tunnel.tls.engine import TlsEnd
from tunnel.tls.negotiated import NO_NAMES, TlsNames, TlsParameters, share_names
from tunnel.tls.records import Buffers
from tunnel.wire.proxy_v2 import HeaderMode

if TYPE_CHECKING:  # loaded only if plaintext is permitted
    from tunnel.relay.plain_relay import PlainRelay

NewHandshake = Callable[[HandshakeSlots, StepOwner, socket.socket, OpenEnd, str], Handshake]  # of a server


class Acceptor(Protocol):
    """The tunnel that accepted a session, as the session uses it."""

    loop: Loop
    config: ListenerConfig
    targets: Targets
    buffers: Buffers
    counters: Counters
    buffer_trimmer: BufferTrimmer
    handshakes: HandshakeSlots
    new_handshake: NewHandshake
    connection_log: ConnectionLog
    withdrawal: Withdrawal
    peer_limits: ConnectionLimits | None
    plain_clients: PlainClients
    name: str

    @property
    def generation(self) -> Generation | None:
        """The newest generation."""

    def review(self) -> Generation | None:
        """The newest generation, or None if its identity is not valid now."""

    def count_crash(self, crash: Exception) -> None:
        """Log and count an unexpected exception."""

    def end_session(self, session: Session, record: ConnectionRecord) -> None:
        """Record the end of a session and forget it."""


class SessionStopped(Exception):
    """The connection ends before its relay, for a reason other than a failed handshake or dial."""

    def __init__(self, outcome: ConnectionOutcome, reason: str = "", detail: str = "") -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.reason = reason


class Session(StepRunner):
    """One accepted connection."""

    __slots__ = (
        "_accepted",
        "_accepted_at",
        "_address",
        "_admitted",
        "_attempt",
        "_config",
        "_dial_began",
        "_dial_seconds",
        "_dialled",
        "_generation",
        "_handshake",
        "_handshake_began",
        "_handshake_seconds",
        "_pooled",
        "_relay",
        "_release_peer",
        "_source",
        "_target",
        "_timer",
        "_tls",
        "_tls_names",
        "_tunnel",
        "_withdrawal",
    )

    def __init__(self, tunnel: Acceptor, accepted: socket.socket, address: Any, source: str) -> None:
        super().__init__()
        self._tunnel = tunnel
        self._config = tunnel.config  # a reload may give the tunnel another
        self._accepted: socket.socket | None = accepted
        self._source = source
        self._address = address if self._config.header_mode is not None else None
        self._pooled: PooledTarget | None = None  # from its choice to the end of the connection
        self._target = ""
        self._dialled: socket.socket | None = None
        self._attempt: Attempt | None = None  # which has connected `_dialled`
        self._generation: Generation | None = None  # the one that admitted the peer
        self._handshake: HandshakeResult | None = None  # until the relay begins
        self._admitted: Admitted | None = None
        self._tls: TlsParameters | None = None
        self._tls_names = NO_NAMES  # shared by connections with the same names
        self._handshake_began: float | None = None  # after accept
        self._handshake_seconds: float | None = None
        self._dial_began: float | None = None  # after accept
        self._dial_seconds: float | None = None
        self._relay: Relay | PlainRelay | None = None
        self._withdrawal = ""  # the cause of which the relay was closed
        self._release_peer: Callable[[], None] | None = None  # counted by the limits per peer
        self._accepted_at = tunnel.loop.clock()
        self._timer = tunnel.loop.call_at(self._accepted_at + self._config.connect_timeout, self._time_out, self)

    @property
    def is_relayed(self) -> bool:
        """Whether the peer is admitted, the target connected and the relay begun."""
        return self._relay is not None

    @property
    def admitted(self) -> Admitted | None:
        """The admission of the peer by the newest generation that has judged it."""
        return self._admitted

    @property
    def tls_end(self) -> TlsEnd:
        """Our end of the TLS connection of the relay."""
        assert isinstance(self._relay, Relay)
        return self._relay.tls_end

    @property
    def is_plaintext(self) -> bool:
        """Whether it is a permitted connection of a plain TCP client."""
        return self._admitted is not None and self._admitted.is_plaintext

    @property
    def source(self) -> str:
        """The address of the client: `tcp:HOST:PORT` or `unix:PATH`."""
        return self._source

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes so far from the accepted side to the target, and in the other direction."""
        relay = self._relay
        if relay is None:
            return 0, 0
        return (relay.up, relay.down) if self._config.is_server else (relay.down, relay.up)

    def start(self) -> None:
        """Start the first step."""
        assert self._accepted is not None
        self.run_steps(self._run(self._accepted))

    # -- the steps, in their order

    def _run(self, accepted: socket.socket) -> Steps:
        try:
            if self._config.is_server:
                yield from self._serve(accepted)
            else:
                yield from self._connect(accepted)
        except TlsError as error:
            self._end(ConnectionOutcome.REFUSED, error.reason.value, str(error))
        except PeerDenied as denied:
            self._admitted = None  # by an earlier generation
            self._end(ConnectionOutcome.REFUSED, denied.reason.value, str(denied), peer=denied.peer)
        except LimitExceeded as exceeded:
            self._end(ConnectionOutcome.OVER_LIMIT, exceeded.reason.value, str(exceeded))
        except TargetError as error:
            self._end(ConnectionOutcome.DIAL_FAILED, error.reason.value, str(error))
        except SessionStopped as stopped:
            self._end(stopped.outcome, stopped.reason, str(stopped))
        except NoUsableIdentity:
            self._end(ConnectionOutcome.NO_IDENTITY)
        except ClosedWithoutData:
            self._end(ConnectionOutcome.CLOSED_WITHOUT_DATA)
        except AcmeChallengeAnswered:
            self._end(ConnectionOutcome.ACME_CHALLENGE)
        else:
            self._start_relay()

    def _serve(self, accepted: socket.socket) -> Steps:
        tunnel, plaintext = self._tunnel, self._config.plaintext
        if plaintext is not None and (yield from self._is_plain_client(accepted, plaintext)):
            yield from self._serve_plain_client(accepted)
            return
        yield from self._run_handshake(
            tunnel.new_handshake(tunnel.handshakes, self, accepted, self._open_end, source_of(self._source))
        )
        tunnel.loop.rewatch(accepted, self._watch_client, self)
        yield from self._readmit()
        yield from self._limit_peer()
        yield from self._reach_target(self._dial)
        yield from self._readmit()
        if self._config.header_mode is not None:
            yield from self._write_header(self._config.header_mode)
            yield from self._readmit()

    def _is_plain_client(self, accepted: socket.socket, plaintext: Plaintext) -> Generator[Step, Any, bool]:
        """Whether the client does not begin a TLS handshake; raises PeerDenied if that is not permitted from its address."""
        from tunnel.relay.first_bytes import FirstBytes

        silence = plaintext.silence if may_be_plain(plaintext, self._source) else 0.0
        is_tls = yield FirstBytes(self._tunnel.loop, self, accepted, silence)
        if not is_tls:
            check_plaintext(plaintext, self._source)
        return not is_tls

    def _serve_plain_client(self, accepted: socket.socket) -> Steps:
        tunnel = self._tunnel
        self._admitted = permit_plaintext()
        tunnel.counters.plaintext += 1
        tunnel.plain_clients.add(self._source)
        tunnel.loop.rewatch(accepted, self._watch_client, self)
        yield from self._limit_peer()
        yield from self._reach_target(self._dial)
        if self._config.header_mode is not None:
            yield from self._write_header(HeaderMode.CONN)  # without facts about TLS
        check_plaintext(tunnel.config.plaintext, self._source)  # a reload may have changed it meanwhile

    def _limit_peer(self) -> Steps:
        """Count the connection of the peer until its end; raises LimitExceeded if that exceeds a limit."""
        limits = self._tunnel.peer_limits
        if limits is not None and self._admitted is not None:
            peer, now = self._admitted.peer, self._tunnel.loop.clock()
            self._release_peer = yield from limits.limit(self, peer, self._source, now)

    def _connect(self, accepted: socket.socket) -> Steps:
        self._tunnel.loop.watch(accepted, self._watch_client, self)
        yield from self._reach_target(self._connect_tls)

    def _reach_target(self, attempt: Callable[[PooledTarget], Steps]) -> Steps:
        """Make `attempt` with the only target, or with one of several after the other."""
        targets = self._tunnel.targets
        if targets.only is not None:
            only = self._pooled = targets.only
            only.opened += 1
            try:
                yield from attempt(only)
            except (TlsError, PeerDenied, TargetError) as error:
                targets.pool.note_result(only, error)
                raise
            if only.error:
                targets.pool.note_result(only)
        else:
            deadline = self._accepted_at + self._config.connect_timeout
            yield from try_targets(self._tunnel.loop, targets, self, attempt, deadline)

    def _connect_tls(self, target: PooledTarget) -> Steps:
        tunnel, via_proxy, leftover = self._tunnel, target.route.via_proxy, None
        yield from self._dial(target)
        dialled = self._dialled
        assert dialled is not None
        if via_proxy is not None:
            leftover = yield ProxyConnect(tunnel.loop, self, dialled, via_proxy.open_exchange(), str(via_proxy))
        yield from self._run_handshake(
            Handshake(tunnel.handshakes, self, dialled, self._open_end, is_server=False, leftover=leftover)
        )
        yield from self._readmit()

    def _run_handshake(self, handshake: Handshake) -> Steps:
        try:
            self._handshake = result = yield handshake
        finally:
            if handshake.began is not None:
                self._handshake_began = handshake.began - self._accepted_at
        self._admitted, self._tls = result.admitted, result.end.parameters()
        self._tls_names = self._read_names(result.end)
        assert self._handshake_began is not None
        counters, self._handshake_seconds = self._tunnel.counters, self._age() - self._handshake_began
        if self._config.is_server and counters.handshake is not None:
            counters.handshake.update(int(self._age() * 1e9))
        if counters.durations is not None:
            counters.durations.handshake.add(self._handshake_seconds)

    def _read_names(self, end: TlsEnd | None) -> TlsNames:
        if end is None or not self._tunnel.connection_log.shows_tls_names:
            return NO_NAMES
        return share_names(end.server_name(), end.alpn() if self._config.tls.protocols else b"")

    def _dial(self, target: PooledTarget) -> Steps:
        tunnel, began = self._tunnel, self._age()
        self._dial_began, self._dial_seconds = began, None
        addresses = target.known or tunnel.targets.addresses(target)
        if addresses is None:
            addresses = yield Lookup(tunnel.loop, self, tunnel.targets.cached_name(target))
        winner: Attempt = yield Dial(tunnel.loop, self, addresses)
        self._attempt, self._dialled, self._target = winner, winner.socket, str(winner.endpoint)
        self._dial_seconds = self._age() - began
        if tunnel.counters.durations is not None:
            tunnel.counters.durations.dial.add(self._dial_seconds)

    def _write_header(self, mode: HeaderMode) -> Steps:
        assert self._accepted is not None
        assert self._dialled is not None
        try:
            header = build_header(mode, self._accepted, self._address, self._handshake)
            yield HeaderWriter(self._tunnel.loop, self, self._dialled, header, show_address(self._target))
        except WireError as error:
            raise SessionStopped(
                ConnectionOutcome.HEADER_FAILED, error.reason.value, f"building proxy header: {error}"
            ) from error
        except TargetError as error:
            raise SessionStopped(
                ConnectionOutcome.HEADER_FAILED, error.reason.value, f"writing proxy header: {error}"
            ) from error

    def _readmit(self) -> Steps:
        """Verify and authorize the peer again with each newer generation than the one of the handshake.

        Else a trust bundle or an access rule that was removed meanwhile would still admit the peer.
        """
        tunnel = self._tunnel
        while (generation := tunnel.generation) is not None and generation is not self._generation:
            assert self._handshake is not None
            self._generation = generation
            readmit = partial(generation.context.readmit, self._handshake.end)
            admitted = (yield ThreadCall(tunnel.loop, self, readmit)) if generation.context.is_slow else readmit()
            self._admitted = admitted
            self._handshake = replace(self._handshake, admitted=admitted)

    def _start_relay(self) -> None:
        accepted, dialled, admitted = self._accepted, self._dialled, self._admitted
        assert accepted is not None
        assert dialled is not None
        assert admitted is not None
        tunnel, config = self._tunnel, self._config
        tunnel.counters.relayed += 1
        tunnel.loop.cancel(self._timer)
        if config.max_conn_lifetime:
            due = tunnel.loop.clock() + config.max_conn_lifetime
            self._timer = tunnel.loop.call_at(due, self._end_lifetime, self)
        if tunnel.connection_log.shows_openings:
            tunnel.connection_log.write_opening(self._make_record(ConnectionOutcome.RELAYED, "", ""))
        limit = config.close_timeout
        if self._handshake is None:
            from tunnel.relay.plain_relay import PlainRelay

            relay: Relay | PlainRelay = PlainRelay(
                tunnel.loop, self, admitted, accepted, dialled, buffers=tunnel.buffers, close_timeout=limit
            )
        else:
            tls, plain = (accepted, dialled) if config.is_server else (dialled, accepted)
            relay = Relay(
                tunnel.loop,
                self,
                self._handshake,
                tls,
                plain,
                buffers=tunnel.buffers,
                close_timeout=limit,
                plain_may_have_input=self._dialled_may_have_input() if config.is_server else True,
            )
        self._relay = relay
        self.end_steps()
        self._handshake = self._address = self._generation = None
        tunnel.withdrawal.add(self)
        relay.start()

    def _dialled_may_have_input(self) -> bool:
        """Whether the dialled socket may have input for which the relay gets no event."""
        return self._attempt is None or self._attempt.events != OUT or self._config.header_mode is not None

    # -- what the steps need

    def _open_end(self) -> TlsEnd:
        """Open a TLS end with the generation in use at the first byte, which may be seconds after accept."""
        generation = self._tunnel.review()
        if generation is None:
            raise NoUsableIdentity
        self._generation = generation
        sni = self._pooled.route.sni if self._pooled is not None else ""
        return generation.context.open_end(self._tunnel.buffers, sni, self._source)

    def _watch_client(self, events: int) -> None:
        """End the session if the client hangs up without pending input while a step waits for something else."""
        if events & (IN | ENDING) and self._config.is_server and self._handshake is not None:
            self._handshake = replace(self._handshake, may_have_input=True)
        if events & HANGUP and not self._has_sent():
            detail = "client closed the connection before the target was connected"
            self._stop(SessionStopped(ConnectionOutcome.CLIENT_GONE, "client-gone", detail))

    def _has_sent(self) -> bool:
        """Whether input of the accepted side is pending: a Unix socket reports a hang-up even then."""
        assert self._accepted is not None
        if self._handshake is not None and self._handshake.tail:
            return True
        try:
            return bool(self._accepted.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _time_out(self) -> None:
        self._stop_step(f"exceeded the connect timeout of {self._config.connect_timeout:g}s")

    def _stop_step(self, limit: str) -> None:
        match self._step:
            case Handshake(is_waiting=True):
                slots = f"none of {self._config.max_handshakes} handshake slots became free"
                self._stop(TlsError(TlsFault.BUSY, f"{slots}: {limit}"))
            case Handshake():
                self._stop(TlsError(TlsFault.TIMEOUT, limit))
            case _ if self._config.is_server and self._admitted is None:  # it waits for the first bytes
                self._stop(TlsError(TlsFault.TIMEOUT, limit))
            case ThreadCall():
                self._stop(TlsError(TlsFault.TIMEOUT, f"access policy: {limit}"))
            case HeaderWriter():
                self._stop(TargetError(TargetFault.TIMEOUT, f"{show_address(self._target)}: {limit}"))
            case _:
                route = self._pooled.route if self._pooled is not None else None
                where = (route.via_proxy or route.target_name) if route is not None else self._tunnel.targets.name
                self._stop(TargetError(TargetFault.TIMEOUT, f"{where}: {limit}"))

    # -- several targets

    def use_target(self, target: PooledTarget) -> None:
        """Use this target from now on; the pool has counted the connection."""
        self._pooled = target

    def drop_target(self) -> None:
        """Close what is open to the target, and release it."""
        if self._dialled is not None and self._config.is_server:
            self._tunnel.loop.retire(self._dialled)
        elif self._dialled is not None:
            self._close_tls(self._dialled)
            self._handshake = self._admitted = self._tls = self._generation = None
            self._handshake_began = self._handshake_seconds = None
            self._tls_names = NO_NAMES
        self._dialled = self._dial_seconds = None
        self._target, self.final_data = "", b""
        self._release_target()

    def end_attempt(self, seconds: float) -> None:
        """Fail the step that runs now, because the attempt has taken so many seconds."""
        self._stop_step(f"exceeded {seconds:.3g}s, its part of the connect timeout")

    def log_retry(self, target: PooledTarget, error: AttemptError) -> None:
        """Log that another target is tried."""
        self._tunnel.connection_log.write_retry(self._source, target.route.target_name, error)

    def _release_target(self) -> None:
        if self._pooled is not None:
            self._tunnel.targets.pool.release(self._pooled)
            self._pooled = None

    # -- the end

    def _stop(self, error: Exception) -> None:
        if self.has_steps:
            self.fail_step(error)

    def abort(self) -> None:
        """Close at once, because the process stops."""
        if self._relay is not None:
            self._relay.abort(CloseReason.SHUTDOWN)
        else:
            self._stop(SessionStopped(ConnectionOutcome.STOPPED))

    def readmit_as(self, admitted: Admitted) -> None:
        """Replace the admission of the peer by that of a newer generation."""
        self._admitted = admitted

    def withdraw(self, cause: str, detail: str) -> None:
        """Close the relay at once: its peer is no longer admitted, or a certificate is lost."""
        assert self._relay is not None
        self._withdrawal = cause
        self._relay.abort(CloseReason.WITHDRAWN, detail)

    def crashed(self, crash: Exception) -> None:
        """Log an unexpected exception, and end this session only."""
        self._tunnel.count_crash(crash)
        if self._relay is not None and self._relay.is_open:
            self._relay.abort(CloseReason.CRASH)
        elif self._accepted is not None:
            self.abandon_step()
            self._end(ConnectionOutcome.CRASHED)

    def relay_ended(self, reason: CloseReason, detail: str) -> None:
        """Record the end of the relay."""
        relay = self._relay
        assert relay is not None
        word = self._withdrawal or ("" if reason is CloseReason.CLOSED else reason.value)
        record = self._make_record(
            ConnectionOutcome.RELAYED,
            word,
            detail,
            close_reason=reason,
            has_fin_without_close_notify=relay.has_fin_without_close_notify,
        )
        self._relay = None  # break the reference cycle between session and relay
        self._finish(record)

    def relay_needs_trim(self) -> None:
        """Trim the relay's buffers once it is idle."""
        assert isinstance(self._relay, Relay)
        self._tunnel.buffer_trimmer.add(self._relay)

    def _end_lifetime(self) -> None:
        if self._relay is not None:
            self._relay.abort(CloseReason.LIFETIME, "max connection lifetime reached")

    def _end(self, outcome: ConnectionOutcome, reason: str = "", detail: str = "", *, peer: Peer | None = None) -> None:
        """Close before the relay; send close_notify after a handshake, else the final data of the failed step."""
        loop, is_server = self._tunnel.loop, self._config.is_server
        tls, plain = (self._accepted, self._dialled) if is_server else (self._dialled, self._accepted)
        if tls is not None:
            self._close_tls(tls)
        if plain is not None:
            loop.retire(plain)
        record = self._make_record(outcome, reason, detail, peer)
        self.end_steps()
        self._handshake = self._address = None
        self._finish(record)

    def _close_tls(self, sock: socket.socket) -> None:
        final_data = self.final_data
        if self._handshake is not None:
            final_data = self._handshake.unsent + self._handshake.end.close_notify()
        if final_data:
            Linger(self._tunnel.loop, sock, final_data, self._tunnel.buffers.inbox_view)
        else:
            self._tunnel.loop.retire(sock)

    def _make_record(
        self,
        outcome: ConnectionOutcome,
        reason: str,
        detail: str,
        peer: Peer | None = None,
        *,
        close_reason: CloseReason | None = None,
        has_fin_without_close_notify: bool = False,
    ) -> ConnectionRecord:
        tunnel, admitted, route = self._tunnel, self._admitted, self._pooled.route if self._pooled is not None else None
        forwarded, returned = self.traffic
        if isinstance(self._step, Handshake):
            self._tls_names = self._read_names(self._step.tls_end)
        return ConnectionRecord(
            outcome=outcome,
            is_server=self._config.is_server,
            listener=tunnel.name,
            source=self._source,
            seconds=self._age(),
            listener_name=self._config.name,
            target=self._target,
            target_name=route.target_name if route is not None else tunnel.targets.name,
            via_proxy=route.proxy_name if route is not None else "",
            peer=admitted.peer if admitted is not None else peer,
            rule=admitted.rule if admitted is not None else "",
            reason=reason,
            detail=detail,
            tls=self._tls,
            handshake_seconds=self._handshake_seconds,
            dial_seconds=self._dial_seconds,
            handshake_began=self._handshake_began,
            dial_began=self._dial_began,
            forwarded=forwarded,
            returned=returned,
            server_name=self._tls_names.server_name,
            alpn=self._tls_names.alpn,
            close_reason=close_reason,
            has_fin_without_close_notify=has_fin_without_close_notify,
        )

    def _age(self) -> float:
        """Seconds since accept."""
        return self._tunnel.loop.clock() - self._accepted_at

    def _finish(self, record: ConnectionRecord) -> None:
        self._accepted = self._dialled = None
        self._release_target()
        if self._release_peer is not None:
            self._release_peer()
        self._tunnel.loop.cancel(self._timer)
        self._tunnel.end_session(self, record)
