"""What the backend is told of a caller before its first byte.

Knows where the facts of a PROXY header are found; must not know how they are encoded or sent.
"""

from __future__ import annotations

import socket
from typing import Any

from tunnel.relay.handshake import HandshakeResult
from tunnel.wire.proxy_v2 import HeaderMode, TlsFacts, encode_header


def build_header(mode: HeaderMode, accepted: socket.socket, source: Any, handshake_done: HandshakeResult) -> bytes:
    """The header for an accepted connection from `source`; raises WireError for what does not fit."""
    return encode_header(accepted.family, source, accepted.getsockname(), mode, _facts(handshake_done))


def _facts(handshake_done: HandshakeResult) -> TlsFacts:
    end, peer = handshake_done.end, handshake_done.admitted.peer
    version = end.version().replace("TLSv", "TLS ")
    if peer is None:
        return TlsFacts(version, end.server_name(), end.alpn())
    return TlsFacts(
        version,
        end.server_name(),
        end.alpn(),
        common_name=peer.common_name,
        leaf=peer.leaf,
        spiffe_id=str(peer.spiffe_id or ""),
    )
