"""Builds the PROXY header of an accepted connection."""

from __future__ import annotations

import socket
from typing import Any

from tunnel.relay.handshake import HandshakeResult
from tunnel.wire.proxy_v2 import HeaderMode, TlsFacts, encode_header


def build_header(mode: HeaderMode, accepted: socket.socket, source: Any, handshake: HandshakeResult) -> bytes:
    """Return the header for an accepted connection from `source`; raises WireError if a field is too long."""
    return encode_header(accepted.family, source, accepted.getsockname(), mode, _facts(handshake))


def _facts(handshake: HandshakeResult) -> TlsFacts:
    end, peer = handshake.end, handshake.admitted.peer
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
