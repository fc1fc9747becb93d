"""Opens the relay of a session: with TLS on one side, or without for a permitted plain client."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, TypeAlias

from tunnel.authz.authorizer import Admitted
from tunnel.config.model import ListenerConfig
from tunnel.listener.acceptor import Acceptor
from tunnel.net.race import Attempt
from tunnel.relay.close_reason import RelayOwner
from tunnel.relay.handshake import HandshakeResult
from tunnel.relay.loop import OUT
from tunnel.relay.relay import Relay

if TYPE_CHECKING:  # loaded only if plaintext is permitted
    from tunnel.relay.plain_relay import PlainRelay


SessionRelay: TypeAlias = "Relay | PlainRelay"


def open_relay(
    tunnel: Acceptor[Any],
    config: ListenerConfig,
    owner: RelayOwner,
    admitted: Admitted,
    handshake: HandshakeResult | None,
    accepted: socket.socket,
    attempt: Attempt,
) -> SessionRelay:
    """Return a relay, to be started by the caller; `handshake` is None for a plain client."""
    loop, buffers, limit = tunnel.loop, tunnel.buffers, config.close_timeout
    if handshake is None:
        from tunnel.relay.plain_relay import PlainRelay

        return PlainRelay(loop, owner, admitted, accepted, attempt.socket, buffers=buffers, close_timeout=limit)
    tls, plain = (accepted, attempt.socket) if config.is_server else (attempt.socket, accepted)
    return Relay(
        loop,
        owner,
        handshake,
        tls,
        plain,
        buffers=buffers,
        close_timeout=limit,
        # A header is written in an event of its own, and a client's socket was not read.
        plain_may_have_input=not config.is_server or attempt.events != OUT or config.header_mode is not None,
    )
