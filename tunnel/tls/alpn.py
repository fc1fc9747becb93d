"""ALPN (RFC 7301): the protocols that a client offers, and the one that a server selects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tunnel.tls.openssl import Context, ffi, lib, require
from tunnel.wire.byte_reader import ByteReader

ACME_PROTOCOL: Final = b"acme-tls/1"  # RFC 8737, section 6.2

_SIGNATURE = "int(SSL *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)"


def offer_protocols(context: Context, protocols: Sequence[bytes]) -> None:
    """Offer these protocols as a client, in order of preference."""
    names = b"".join(bytes([len(protocol)]) + protocol for protocol in protocols)
    require(lib.SSL_CTX_set_alpn_protos(context, names, len(names)) == 0)  # unlike other functions


def select_protocol(context: Context, protocols: Sequence[bytes]) -> object:
    """Select, as a server, the first of these protocols that the client offers, as Go does.

    A client that offers only others gets the alert `no_application_protocol`; one that does not use ALPN is accepted. The
    returned callback must live as long as the context.
    """
    # OpenSSL copies the selected protocol after the callback has returned.
    known = {protocol: ffi.new("unsigned char[]", protocol) for protocol in protocols}
    callback = ffi.callback(_SIGNATURE, _select_among(known), error=lib.SSL_TLSEXT_ERR_ALERT_FATAL)
    lib.SSL_CTX_set_alpn_select_cb(context, callback, ffi.NULL)
    return callback, known


def parse_protocols(names: ByteReader) -> tuple[bytes, ...]:
    """Return the protocol names of an ALPN extension, each of which has a length of one byte; raises WireError."""
    found = []
    while names.has_more:
        found.append(names.vector(1))
    return tuple(found)


def _select_among(known: dict[bytes, Any]) -> Callable[..., int]:
    def select(_ssl: Any, out: Any, out_size: Any, offered: Any, size: int, _: Any) -> int:
        # OpenSSL has checked the lengths (tls_parse_ctos_alpn).
        names = parse_protocols(ByteReader(bytes(ffi.buffer(offered, size)), "ALPN extension"))
        for protocol, stored in known.items():
            if protocol in names:
                out[0], out_size[0] = stored, len(protocol)
                return int(lib.SSL_TLSEXT_ERR_OK)
        return int(lib.SSL_TLSEXT_ERR_ALERT_FATAL)  # alert 120, no_application_protocol

    return select
