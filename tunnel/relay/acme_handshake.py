"""A server handshake that also answers ACME challenges (TLS-ALPN-01, RFC 8737)."""

from __future__ import annotations

import socket

from tunnel.errors import WireError
from tunnel.relay.handshake import Handshake, OpenEnd
from tunnel.relay.handshake_slots import HandshakeSlots
from tunnel.relay.step import AcmeChallengeAnswered, StepOwner
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.alpn import ACME_PROTOCOL
from tunnel.tls.client_hello import parse_client_hello
from tunnel.tls.engine import TlsEnd


class AcmeHandshake(Handshake):
    """A handshake that reads the ClientHello before OpenSSL does, and answers a challenge with the context for it.

    A connection that verifies a challenge ends with the handshake. Every other client gets the usual context.
    """

    __slots__ = ("_challenges", "_is_decided", "_is_probe")

    def __init__(
        self,
        handshakes: HandshakeSlots,
        owner: StepOwner,
        sock: socket.socket,
        open_end: OpenEnd,
        source: str = "",
        *,
        challenges: AcmeChallenges,
    ) -> None:
        super().__init__(handshakes, owner, sock, open_end, source)
        self._challenges = challenges
        self._is_decided = False
        self._is_probe = False

    def _advance(self, size: int) -> None:
        if self._is_decided or self._decide(size):
            super()._advance(size)
            return
        self._tail = bytes(self._buffers.inbox_view[:size])
        if self._reads_until_eagain:
            self._loop.call_again(self._socket)

    def _decide(self, size: int) -> bool:
        """Choose the context once the ClientHello is complete; return whether it is. OpenSSL refuses invalid data."""
        try:
            hello = parse_client_hello(bytes(self._buffers.inbox_view[:size]))
        except WireError:
            self._is_decided = True
            return True
        if hello is None:
            return False
        context = self._challenges.admit(hello)
        if context is not None:
            self._is_probe = True
            self._end = context.open_end(self._buffers)
        self._is_decided = True
        return True

    def _proceed(self, end: TlsEnd, is_done: bool, tail: bytes) -> None:
        # Never relay: an ACME server sends no certificate, and acme-tls/1 carries no data (RFC 8737, section 3).
        if is_done and (self._is_probe or end.alpn() == ACME_PROTOCOL):
            self._finish()
            self.owner.step_failed(AcmeChallengeAnswered(), self._send_queue.unsent + end.take())
        else:
            super()._proceed(end, is_done, tail)
