"""One connection, from accept to close: its steps up to the relay, and the record of how it ended.

The steps are a generator: it yields what it waits for, receives the result, and has every failure raised where it waits.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from tunnel.authz.authorizer import Admitted, permit_plaintext
from tunnel.authz.peer import Peer
from tunnel.errors import PeerDenied
from tunnel.lazy_dataclass import replace
from tunnel.listener.acceptor import Acceptor
from tunnel.listener.connection_log import show_address
from tunnel.listener.connection_progress import ConnectionProgress
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.listener.failover import AttemptError, reach_target
from tunnel.listener.generation import Generation
from tunnel.listener.plain_clients import check_plaintext, is_plain_client
from tunnel.listener.relay_opening import SessionRelay, open_relay
from tunnel.listener.session_stop import FAILURES, SessionStopped, client_gone, header_failures, outcome_of, timeout_of
from tunnel.listener.target_pool import PooledTarget
from tunnel.listener.targets import Lookup
from tunnel.log_limit import source_of
from tunnel.net.race import Attempt
from tunnel.net.sockets import has_input
from tunnel.relay.close_reason import CloseReason
from tunnel.relay.dial import Dial
from tunnel.relay.handshake import Handshake, HandshakeResult
from tunnel.relay.linger import Linger
from tunnel.relay.loop import ENDING, HANGUP, IN
from tunnel.relay.proxy_connect import ProxyConnect
from tunnel.relay.proxy_header import HeaderWriter, build_header
from tunnel.relay.relay import Relay
from tunnel.relay.step import NoUsableIdentity, StepRunner, Steps
from tunnel.relay.thread_call import ThreadCall
from tunnel.tls.engine import TlsEnd
from tunnel.wire.proxy_v2 import HeaderMode


class Session(StepRunner):
    """One accepted connection."""

    __slots__ = (
        "_accepted",
        "_address",
        "_attempt",
        "_config",
        "_dialled",
        "_generation",
        "_handshake",
        "_progress",
        "_relay",
        "_release_peer",
        "_timer",
        "_tunnel",
        "_withdrawal",
    )

    def __init__(self, tunnel: Acceptor[Session], accepted: socket.socket, address: Any, source: str) -> None:
        super().__init__()
        self._tunnel = tunnel
        self._config = tunnel.config  # a reload may give the tunnel another
        self._progress = ConnectionProgress(self._config, tunnel.name, tunnel.targets, source, tunnel.loop.clock)
        self._accepted: socket.socket | None = accepted
        self._address = address if self._config.header_mode is not None else None
        self._dialled: socket.socket | None = None
        self._attempt: Attempt | None = None  # which has connected `_dialled`
        self._generation: Generation | None = None  # the one that admitted the peer
        self._handshake: HandshakeResult | None = None  # until the relay begins
        self._relay: SessionRelay | None = None
        self._withdrawal = ""  # the cause of which the relay was closed
        self._release_peer: Callable[[], None] | None = None  # counted by the limits per peer
        self._timer = tunnel.loop.call_at(self._progress.accepted_at + self._config.connect_timeout, self._time_out, self)

    @property
    def is_relayed(self) -> bool:
        """Whether the peer is admitted, the target connected and the relay begun."""
        return self._relay is not None

    @property
    def admitted(self) -> Admitted | None:
        """The admission of the peer by the newest generation that has judged it."""
        return self._progress.admitted

    @property
    def tls_end(self) -> TlsEnd:
        """Our end of the TLS connection of the relay."""
        assert isinstance(self._relay, Relay)
        return self._relay.tls_end

    @property
    def is_plaintext(self) -> bool:
        """Whether it is a permitted connection of a plain TCP client."""
        return self._progress.admitted is not None and self._progress.admitted.is_plaintext

    @property
    def source(self) -> str:
        """The address of the client: `tcp:HOST:PORT` or `unix:PATH`."""
        return self._progress.source

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
                self._tunnel.loop.watch(accepted, self._watch_client, self)
                yield from self._reach_target(self._connect_tls)
        except FAILURES as error:
            self._fail(error)
        else:
            self._start_relay(accepted)

    def _fail(self, error: Exception) -> None:
        peer = None
        if isinstance(error, PeerDenied):
            self._progress.admitted, peer = None, error.peer  # it may have been admitted by an earlier generation
        outcome, reason = outcome_of(error)
        self._end(outcome, reason, str(error), peer=peer)

    def _serve(self, accepted: socket.socket) -> Steps:
        tunnel, plaintext = self._tunnel, self._config.plaintext
        if plaintext is not None and (
            yield from is_plain_client(tunnel.loop, self, accepted, plaintext, self._progress.source)
        ):
            yield from self._serve_plain_client(accepted)
            return
        yield from self._run_handshake(
            tunnel.new_handshake(tunnel.handshakes, self, accepted, self._open_end, source_of(self._progress.source))
        )
        tunnel.loop.rewatch(accepted, self._watch_client, self)
        yield from self._readmit()
        yield from self._limit_peer()
        yield from self._reach_target(self._dial)
        yield from self._readmit()
        if self._config.header_mode is not None:
            yield from self._write_header(self._config.header_mode, accepted)
            yield from self._readmit()

    def _serve_plain_client(self, accepted: socket.socket) -> Steps:
        tunnel = self._tunnel
        self._progress.admitted = permit_plaintext()
        tunnel.counters.plaintext += 1
        tunnel.plain_clients.add(self._progress.source)
        tunnel.loop.rewatch(accepted, self._watch_client, self)
        yield from self._limit_peer()
        yield from self._reach_target(self._dial)
        if self._config.header_mode is not None:
            yield from self._write_header(HeaderMode.CONN, accepted)  # without facts about TLS
        check_plaintext(tunnel.config.plaintext, self._progress.source)  # a reload may have changed it meanwhile

    def _limit_peer(self) -> Steps:
        """Count the connection of the peer until its end; raises LimitExceeded if that exceeds a limit."""
        limits = self._tunnel.peer_limits
        if limits is not None and self._progress.admitted is not None:
            peer, now = self._progress.admitted.peer, self._tunnel.loop.clock()
            self._release_peer = yield from limits.limit(self, peer, self._progress.source, now)

    def _reach_target(self, attempt: Callable[[PooledTarget], Steps]) -> Steps:
        deadline = self._progress.accepted_at + self._config.connect_timeout
        return reach_target(self._tunnel.loop, self._tunnel.targets, self, attempt, deadline)

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
        progress = self._progress
        try:
            self._handshake = result = yield handshake
        finally:
            if handshake.began is not None:
                progress.handshake_began = handshake.began - progress.accepted_at
        progress.end_handshake(result.admitted, result.end.parameters(), self._tunnel.counters)
        progress.read_names(result.end, self._tunnel.connection_log)

    def _dial(self, target: PooledTarget) -> Steps:
        tunnel, progress = self._tunnel, self._progress
        progress.dial_began, progress.dial_seconds = progress.age(), None
        addresses = target.known or tunnel.targets.addresses(target)
        if addresses is None:
            addresses = yield Lookup(tunnel.loop, self, tunnel.targets.cached_name(target))
        winner: Attempt = yield Dial(tunnel.loop, self, addresses)
        self._attempt, self._dialled = winner, winner.socket
        progress.end_dial(str(winner.endpoint), tunnel.counters)

    def _write_header(self, mode: HeaderMode, accepted: socket.socket) -> Steps:
        assert self._dialled is not None
        with header_failures():
            header = build_header(mode, accepted, self._address, self._handshake)
            yield HeaderWriter(self._tunnel.loop, self, self._dialled, header, show_address(self._progress.target))

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
            self._progress.admitted = admitted
            self._handshake = replace(self._handshake, admitted=admitted)

    def _start_relay(self, accepted: socket.socket) -> None:
        attempt, admitted = self._attempt, self._progress.admitted
        assert attempt is not None
        assert admitted is not None
        tunnel, config = self._tunnel, self._config
        tunnel.counters.relayed += 1
        tunnel.loop.cancel(self._timer)
        if config.max_conn_lifetime:
            self._timer = tunnel.loop.call_at(tunnel.loop.clock() + config.max_conn_lifetime, self._end_lifetime, self)
        if tunnel.connection_log.shows_openings:
            tunnel.connection_log.write_opening(self._make_record(ConnectionOutcome.RELAYED, "", ""))
        self._relay = relay = open_relay(tunnel, config, self, admitted, self._handshake, accepted, attempt)
        self.end_steps()
        self._handshake = self._address = self._generation = None
        tunnel.withdrawal.add(self)
        relay.start()

    def _open_end(self) -> TlsEnd:
        """Open a TLS end with the generation in use at the first byte, which may be seconds after accept."""
        generation = self._tunnel.review()
        if generation is None:
            raise NoUsableIdentity
        self._generation = generation
        sni = self._progress.pooled.route.sni if self._progress.pooled is not None else ""
        return generation.context.open_end(self._tunnel.buffers, sni, self._progress.source)

    def _watch_client(self, events: int) -> None:
        """End the session if the client hangs up without pending input while a step waits for something else."""
        if events & (IN | ENDING) and self._config.is_server and self._handshake is not None:
            self._handshake = replace(self._handshake, may_have_input=True)
        has_sent = self._handshake is not None and bool(self._handshake.tail)
        if events & HANGUP and not has_sent and self._accepted is not None and not has_input(self._accepted):
            self._stop(client_gone())

    def _time_out(self) -> None:
        self._stop_step(f"exceeded the connect timeout of {self._config.connect_timeout:g}s")

    def _stop_step(self, limit: str) -> None:
        self._stop(timeout_of(self._step, limit, self._progress))

    def use_target(self, target: PooledTarget) -> None:
        """Use this target from now on; the pool has counted the connection."""
        self._progress.pooled = target

    def drop_target(self) -> None:
        """Close what is open to the target, and release it."""
        if self._dialled is not None and self._config.is_server:
            self._tunnel.loop.retire(self._dialled)
        elif self._dialled is not None:
            self._close_tls(self._dialled)
            self._handshake = self._generation = None
            self._progress.forget_handshake()
        self._dialled, self.final_data = None, b""
        self._progress.forget_dial()
        self._release_target()

    def end_attempt(self, seconds: float) -> None:
        """Fail the step that runs now, because the attempt has taken so many seconds."""
        self._stop_step(f"exceeded {seconds:.3g}s, its part of the connect timeout")

    def log_retry(self, target: PooledTarget, error: AttemptError) -> None:
        """Log that another target is tried."""
        self._tunnel.connection_log.write_retry(self._progress.source, target.route.target_name, error)

    def _release_target(self) -> None:
        pooled, self._progress.pooled = self._progress.pooled, None
        if pooled is not None:
            self._tunnel.targets.pool.release(pooled)

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
        self._progress.admitted = admitted

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
        word = self._withdrawal or ("" if reason is CloseReason.CLOSED else reason.value)
        record = self._make_record(ConnectionOutcome.RELAYED, word, detail, close_reason=reason)
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
        accepted, dialled = self._accepted, self._dialled
        tls, plain = (accepted, dialled) if self._config.is_server else (dialled, accepted)
        if tls is not None:
            self._close_tls(tls)
        if plain is not None:
            self._tunnel.loop.retire(plain)
        record = self._make_record(outcome, reason, detail, peer=peer)
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
        close_reason: CloseReason | None = None,
    ) -> ConnectionRecord:
        if isinstance(self._step, Handshake):
            self._progress.read_names(self._step.tls_end, self._tunnel.connection_log)
        return self._progress.make_record(
            outcome,
            reason,
            detail,
            peer,
            self.traffic,
            close_reason,
            has_fin_without_close_notify=self._relay is not None and self._relay.has_fin_without_close_notify,
        )

    def _finish(self, record: ConnectionRecord) -> None:
        self._accepted = self._dialled = None
        self._release_target()
        if self._release_peer is not None:
            self._release_peer()
        self._tunnel.loop.cancel(self._timer)
        self._tunnel.end_session(self, record)
