"""A server's handshake where ACME authorities may come to look at a challenge.

Knows that the ClientHello decides which context answers, before OpenSSL sees it, and that an authority's probe ends with
the handshake; must not know challenges, which the gate has.
"""

from __future__ import annotations

import socket

from tunnel.errors import WireError
from tunnel.relay.handshake import Handshake, HandshakeOwner, OpenEnd
from tunnel.relay.handshake_slots import HandshakeSlots
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.alpn import ACME_PROTOCOL
from tunnel.tls.client_hello import parse_client_hello
from tunnel.tls.engine import TlsEnd


class AcmeHandshake(Handshake):
    """A handshake that looks at the ClientHello first; everyone but a probe goes on with the end that was meant for him."""

    __slots__ = ("_challenges", "_is_decided", "_is_probe")

    def __init__(
        self,
        handshakes: HandshakeSlots,
        owner: HandshakeOwner,
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
        if self._is_thorough:
            self._loop.call_again(self._socket)

    def _decide(self, size: int) -> bool:
        """Choose the end that answers, once the ClientHello is there; what is none is OpenSSL's to refuse."""
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
        # Whoever has agreed on ACME's protocol wants nothing else, and a probe has shown no certificate: never carried.
        if is_done and (self._is_probe or end.alpn() == ACME_PROTOCOL):
            self._leave()
            self.owner.acme_probe_answered(self._outbox.waiting + end.take())
        else:
            super()._proceed(end, is_done, tail)
