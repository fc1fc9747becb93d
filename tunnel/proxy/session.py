"""One connection, from accept to close.

Knows the order of the steps (a server shakes hands, dials and may announce the caller; a client dials, may ask a proxy, and
shakes hands; then both relay) and what each way out says and counts; must not know how a step is done. Which socket speaks
TLS is data.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from tunnel.authz.peer import Admitted
from tunnel.errors import PeerDenied, TargetError, TargetFault, TlsError, TlsFault, WireError
from tunnel.log import Category, Log, escape
from tunnel.log_limit import RefusalLog, source_of
from tunnel.net.sockets import SocketAddress, describe
from tunnel.proxy.generation import Generation
from tunnel.proxy.header import build_header
from tunnel.proxy.report import Pipe, show_address
from tunnel.proxy.route import Route
from tunnel.proxy.settings import Settings
from tunnel.relay.buffer_trimmer import BufferTrimmer
from tunnel.relay.close_reason import CloseReason
from tunnel.relay.dial import Dial
from tunnel.relay.handshake import Handshake, HandshakeResult, NewHandshake
from tunnel.relay.handshake_slots import HandshakeSlots
from tunnel.relay.header_writer import HeaderWriter
from tunnel.relay.linger import Linger
from tunnel.relay.loop import GONE, Loop
from tunnel.relay.proxy_connect import ProxyConnect
from tunnel.relay.relay import Relay
from tunnel.status.counters import Counters
from tunnel.tls.engine import Buffers, TlsEnd
from tunnel.wire.proxy_v2 import HeaderMode

_ORDINARY = {
    CloseReason.CLOSED,
    CloseReason.RESET_BY_PEER,
    CloseReason.RESET_BY_PLAIN,
    CloseReason.CUT,
    CloseReason.CRASH,
}  # the closing line says enough


class Host(Protocol):
    """What a session needs of the tunnel that has accepted it."""

    loop: Loop
    settings: Settings
    route: Route
    log: Log
    refusals: RefusalLog
    buffers: Buffers
    counters: Counters
    buffer_trimmer: BufferTrimmer
    handshakes: HandshakeSlots
    new_handshake: NewHandshake

    @property
    def generation(self) -> Generation | None:
        """The newest generation."""

    def review(self) -> Generation | None:
        """The generation in force, if our identity may be used now."""

    def find_target(self, session: Session) -> None:
        """Tell the session the endpoints to dial, now or later."""

    def count_end(self, relay: Relay, how: CloseReason) -> None:
        """Count how the TLS side of a relay ended."""

    def count_crash(self, crash: Exception) -> None:
        """Write a bug down in one line, with its traceback."""

    def forget(self, session: Session) -> None:
        """A session is over."""


class Session:
    """One accepted connection and what becomes of it."""

    __slots__ = (
        "_accepted",
        "_address",
        "_deadline",
        "_dialled",
        "_generation",
        "_handshake_result",
        "_opened",
        "_pipe",
        "_relay",
        "_source",
        "_step",
        "_target",
        "_timer",
        "_tunnel",
    )

    def __init__(self, tunnel: Host, accepted: socket.socket, address: Any) -> None:
        self._tunnel = tunnel
        self._accepted: socket.socket | None = accepted
        self._source = describe(accepted.family, address)
        self._address = address if tunnel.settings.header is not None else None
        self._target = ""
        self._dialled: socket.socket | None = None
        self._step: Dial | Handshake | ProxyConnect | HeaderWriter | None = None  # what is under way, until the relay
        self._generation: Generation | None = None  # that has admitted the peer
        self._handshake_result: HandshakeResult | None = None
        self._relay: Relay | None = None
        self._pipe: Pipe | None = None
        self._opened = tunnel.loop.clock()
        self._deadline = self._opened + tunnel.settings.connect_timeout  # for handshake and dial together
        self._timer = tunnel.loop.call_at(self._deadline, self._too_slow, self)

    @property
    def is_carried(self) -> bool:
        """Whether the peer is admitted, the target reached and bytes are on their way."""
        return self._relay is not None

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes so far from the accepted to the dialled side, and back."""
        relay = self._relay
        if relay is None:
            return 0, 0
        return (relay.up, relay.down) if self._tunnel.settings.is_server else (relay.down, relay.up)

    # -- the steps

    def start(self) -> None:
        """From accept to the first step."""
        assert self._accepted is not None
        self._tunnel.loop.watch(self._accepted, self._waiting, self)
        if self._tunnel.settings.is_server:
            self._shake(self._accepted)
        else:
            self._tunnel.find_target(self)

    def resolved(self, found: tuple[SocketAddress, ...] | TargetError) -> None:
        """From the endpoints to dialling them."""
        if self._accepted is None:
            return
        if isinstance(found, TargetError):
            self.dial_failed(found)
        else:
            self._step = dial = Dial(self._tunnel.loop, self, found)
            dial.start()

    def target_connected(self, sock: socket.socket, endpoint: SocketAddress) -> None:
        """From the dialled connection to a server's relay or announcement, or to a client's proxy or handshake."""
        self._step = None
        self._dialled = sock
        self._target = str(endpoint)
        header, via_proxy = self._tunnel.settings.header, self._tunnel.route.via_proxy
        if self._handshake_result is not None:
            self._readmit(self._carry if header is None else partial(self._announce, header))
        elif via_proxy is None:
            self._tunnel.loop.call_again(sock)  # a server that speaks first may have done so before we listened
            self._shake(sock)
        else:
            self._step = hop = ProxyConnect(self._tunnel.loop, self, sock, via_proxy.open_exchange(), str(via_proxy))
            hop.start()

    def proxy_connected(self, leftover: bytes) -> None:
        """From the proxy's word that the target is reached to the handshake with it."""
        assert self._dialled is not None
        self._step = None
        self._shake(self._dialled, leftover)

    def header_sent(self) -> None:
        """From the announcement to the relay."""
        self._step = None
        self._readmit(self._carry)

    def handshake_done(self, result: HandshakeResult) -> None:
        """From the verdict to the relay, or to a server's dialling."""
        self._step = None
        self._handshake_result = result
        if self._tunnel.settings.is_server:
            self._time_handshake()
            if self._accepted is not None:
                self._tunnel.loop.rewatch(self._accepted, self._waiting, self)
                self._readmit(partial(self._tunnel.find_target, self))
        elif self._dialled is not None:
            self._readmit(self._carry)

    def _announce(self, mode: HeaderMode) -> None:
        assert self._accepted is not None
        assert self._dialled is not None
        assert self._handshake_result is not None
        try:
            header = build_header(mode, self._accepted, self._address, self._handshake_result)
        except WireError as error:
            self._unannounced("building", error)
            return
        self._step = header_writer = HeaderWriter(self._tunnel.loop, self, self._dialled, header, show_address(self._target))
        header_writer.start()

    def _shake(self, sock: socket.socket, behind: bytes | None = None) -> None:
        tunnel = self._tunnel
        self._step = handshake = tunnel.new_handshake(tunnel.handshakes, self, sock, self._open_end, source_of(self._source))
        tunnel.loop.rewatch(sock, handshake.ready, self)
        if tunnel.settings.is_server:
            handshake.wait()
        else:
            handshake.start(behind)

    def _open_end(self) -> TlsEnd | None:
        """A TLS end of the generation in force at the first byte, and not at accept: there may be seconds in between."""
        generation = self._tunnel.review()
        if generation is None:
            self._tunnel.counters.no_identity += 1
            self._close()
            return None
        self._generation = generation
        return generation.context.open_end(self._tunnel.buffers, self._tunnel.settings.server_name)

    def _readmit(self, go_on: Callable[[], None]) -> None:
        """Go on if the generation in force admits the peer too, which may be a newer one than that of the handshake.

        An authority, or a rule, that is gone since then must not let anybody in.
        """
        generation, handshake_done = self._tunnel.generation, self._handshake_result
        assert handshake_done is not None
        if generation is None or generation is self._generation:
            go_on()
            return
        self._generation = generation
        judge = partial(generation.context.judge_again, handshake_done.end)
        if generation.context.is_slow:
            self._tunnel.loop.call_in_thread(judge, lambda future: self._take_verdict(future.result, go_on), self)
        else:
            self._take_verdict(judge, go_on)

    def _take_verdict(self, judge: Callable[[], Admitted], go_on: Callable[[], None]) -> None:
        if self._handshake_result is None:  # the session has ended meanwhile
            return
        try:
            self._handshake_result = replace(self._handshake_result, admitted=judge())
        except PeerDenied as denied:
            self._refuse(denied, b"")
        else:
            self._readmit(go_on)

    def _carry(self) -> None:
        accepted, target_connected, handshake_done = self._accepted, self._dialled, self._handshake_result
        assert accepted is not None
        assert target_connected is not None
        assert handshake_done is not None
        tunnel, settings = self._tunnel, self._tunnel.settings
        tunnel.counters.carried += 1
        tunnel.loop.cancel(self._timer)
        if settings.max_conn_lifetime:
            due = tunnel.loop.clock() + settings.max_conn_lifetime
            self._timer = tunnel.loop.call_at(due, self._too_old, self)
        self._pipe = Pipe(self._source, self._target, settings.is_server, handshake_done.admitted)
        if tunnel.log.wants(Category.CONNS):
            tunnel.log.write(self._pipe.opening(), Category.CONNS)
        tls, plain = (accepted, target_connected) if settings.is_server else (target_connected, accepted)
        self._relay = Relay(
            tunnel.loop, self, handshake_done, tls, plain, buffers=tunnel.buffers, close_timeout=settings.close_timeout
        )
        self._handshake_result = self._address = self._generation = None
        self._relay.start()

    # -- the ways out

    def closed_without_data(self) -> None:
        """A health check: connected, closed, nothing said. From a server's side it is a target that does not serve."""
        if self._tunnel.settings.is_server:
            self._tunnel.counters.closed_without_data += 1
            self._time_handshake()
            self._close()
        else:
            self.handshake_failed(TlsError(TlsFault.CLOSED, "the target closed the connection without a word"), b"")

    def acme_probe_answered(self, farewell: bytes) -> None:
        """An ACME authority's look at a challenge: answered, and never dialled."""
        self._tunnel.counters.acme_challenge += 1
        self._time_handshake()
        line = f"closed ACME challenge from {show_address(self._source).removeprefix('tcp:')}"
        self._tunnel.log.write(line, Category.CONNS)
        self._close(farewell)

    def handshake_failed(self, error: TlsError | PeerDenied, farewell: bytes) -> None:
        """The handshake failed; `farewell` is the alert for the peer."""
        if self._tunnel.settings.is_server:
            self._time_handshake()
        self._refuse(error, farewell)

    def _refuse(self, error: TlsError | PeerDenied, farewell: bytes) -> None:
        """Log and count why there is no connection with the peer, and close."""
        self._tunnel.counters.refused += 1
        self._tunnel.counters.add_reason(error.reason.value)
        why = f"{escape(str(error))} reason={error.reason.value}"
        if self._tunnel.settings.is_server:
            self._tunnel.counters.handshake_timeouts += error.reason is TlsFault.TIMEOUT
            line = f"error on TLS handshake from {show_address(self._source).removeprefix('tcp:')}: {why}"
            self._log_refusal(error.reason.value, line, Category.HANDSHAKE_ERRORS)
        else:
            who = "the server refused us: " if error.reason is TlsFault.REFUSED else ""
            line = f"error on dial: TLS handshake with {self._where()}: {who}{why}{self._who()}"
            self._log_refusal(error.reason.value, line)
        self._close(farewell)

    def dial_failed(self, error: TargetError) -> None:
        """The target cannot be reached, or its proxy does not bring us there."""
        self._tunnel.counters.dial_failed += 1
        self._tunnel.counters.add_reason(error.reason.value)
        self._log_refusal(error.reason.value, f"error on dial: {error} reason={error.reason.value}{self._who()}")
        self._close()

    def header_failed(self, error: TargetError) -> None:
        """The target does not take the announcement."""
        self._unannounced("writing", error)

    def relay_ended(self, how: CloseReason, detail: str) -> None:
        """The relay is over, one way or another; its sockets are given up already."""
        relay, pipe, tunnel = self._relay, self._pipe, self._tunnel
        assert relay is not None
        assert pipe is not None
        forwarded, returned = self.traffic
        tunnel.count_end(relay, how)
        tunnel.counters.forwarded += forwarded
        tunnel.counters.returned += returned
        if how not in _ORDINARY:
            what = "the peer refused us: " if how is CloseReason.REFUSED_BY_PEER else ""
            tunnel.log.write(f"error during copy: {what}{escape(detail)} {pipe.who()}", Category.CONN_ERRORS)
        if tunnel.log.wants(Category.CONNS):
            seconds = tunnel.loop.clock() - self._opened
            tunnel.log.write(pipe.closed(forwarded, returned, seconds, how.value), Category.CONNS)
        self._accepted = self._dialled = self._relay = None  # each knows the other: nothing is left to the collector
        self._forget()

    def relay_grown(self) -> None:
        """A burst has passed: its memory is given back when the connection has been quiet for a while."""
        assert self._relay is not None
        self._tunnel.buffer_trimmer.add(self._relay)

    def cut(self) -> None:
        """End at once, because the process ends."""
        self._abort(CloseReason.CUT)

    def crashed(self, crash: Exception) -> None:
        """A bug of ours: it is written down and ends this session only."""
        self._tunnel.count_crash(crash)
        self._abort(CloseReason.CRASH)

    def _time_handshake(self) -> None:
        """Of an accepted side only: with a target it is a part of dialling."""
        if self._tunnel.counters.handshake is not None:
            self._tunnel.counters.handshake.update(self._age())

    def _age(self) -> int:
        """Nanoseconds since it was accepted."""
        return int((self._tunnel.loop.clock() - self._opened) * 1e9)

    def _unannounced(self, what: str, error: TargetError | WireError) -> None:
        self._tunnel.counters.dial_failed += 1
        self._tunnel.counters.add_reason(error.reason.value)
        line = f"error {what} proxy header: {error} reason={error.reason.value}{self._who()}"
        self._log_refusal(error.reason.value, line)
        self._close()

    def _log_refusal(self, reason: str, line: str, category: Category = Category.CONN_ERRORS) -> None:
        self._tunnel.refusals.write(self._source, reason, line, category)

    def _where(self) -> str:
        """With whom a client shakes hands."""
        via_proxy = self._tunnel.route.via_proxy
        return show_address(self._target) if via_proxy is None else f"{self._tunnel.settings.target} through {via_proxy}"

    def _who(self) -> str:
        """For whom something failed, as far as that is known."""
        peer = f" {self._handshake_result.admitted}" if self._handshake_result is not None else ""
        return f" from={show_address(self._source)}{peer}"

    def _waiting(self, events: int) -> None:
        """The accepted side while something else is under way: all that counts is whether it has gone and sent nothing."""
        if events & GONE and not self._has_sent():
            self._tunnel.counters.client_gone += 1
            line = f"error on dial: the caller has gone before the target was reached reason=client-gone{self._who()}"
            self._log_refusal("client-gone", line)
            self._close()

    def _has_sent(self) -> bool:
        """Whether the accepted side has sent something: a Unix peer's close is a hang-up even with input pending."""
        assert self._accepted is not None
        if self._handshake_result is not None and self._handshake_result.tail:
            return True
        try:
            return bool(self._accepted.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _too_slow(self) -> None:
        limit = f"nothing within the connect timeout of {self._tunnel.settings.connect_timeout:g}s"
        if isinstance(self._step, Handshake) and self._step.is_waiting:
            busy = f"no free slot for a handshake, of {self._tunnel.settings.max_handshakes}: {limit}"
            self.handshake_failed(TlsError(TlsFault.BUSY, busy), b"")
        elif isinstance(self._step, Handshake):
            self.handshake_failed(TlsError(TlsFault.TIMEOUT, limit), b"")
        elif isinstance(self._step, HeaderWriter):
            self.header_failed(TargetError(TargetFault.TIMEOUT, f"{show_address(self._target)}: {limit}"))
        else:
            where = self._tunnel.route.via_proxy or self._tunnel.settings.target
            self.dial_failed(TargetError(TargetFault.TIMEOUT, f"{where}: {limit}"))

    def _too_old(self) -> None:
        if self._relay is not None:
            self._relay.abort(CloseReason.LIFETIME, "max connection lifetime reached")

    def _abort(self, how: CloseReason) -> None:
        if self._relay is not None and self._relay.is_open:
            self._relay.abort(how)
        else:
            self._close()

    def _close(self, farewell: bytes = b"") -> None:
        """Give up before the relay; a peer that has shaken hands hears an orderly end, one that has not the farewell."""
        loop, is_server = self._tunnel.loop, self._tunnel.settings.is_server
        tls, plain = (self._accepted, self._dialled) if is_server else (self._dialled, self._accepted)
        if self._handshake_result is not None:
            farewell = self._handshake_result.unsent + self._handshake_result.end.close_notify()
        if tls is not None and farewell:
            Linger(loop, tls, farewell, self._tunnel.buffers.inbox_view)
        elif tls is not None:
            loop.retire(tls)
        if plain is not None:
            loop.retire(plain)
        if isinstance(self._step, Dial | Handshake):
            self._step.abandon()
        self._accepted = self._dialled = self._handshake_result = self._step = self._address = None
        self._forget()

    def _forget(self) -> None:
        self._tunnel.loop.cancel(self._timer)
        if self._tunnel.counters.lifetime is not None:
            self._tunnel.counters.lifetime.update(self._age())
        self._tunnel.forget(self)
