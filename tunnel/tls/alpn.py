"""The one protocol that a server knows by name, and only while it has its certificate from an ACME authority.

Knows how OpenSSL asks for a choice among the protocols that a client offers (RFC 7301); must not know challenges.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL

from tunnel.tls.openssl import ffi, lib, pointer

ACME_PROTOCOL: Final = b"acme-tls/1"  # RFC 8737, section 6.2

_CHOSEN = ffi.new("unsigned char[]", ACME_PROTOCOL)  # OpenSSL copies it after the callback, so it must last longer
_SIGNATURE = "int(SSL *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)"


def install_acme_alpn(context: SSL.Context) -> None:
    """Select ACME's protocol, and refuse clients that offer others only; who offers none at all is not asked about."""
    lib.SSL_CTX_set_alpn_select_cb(pointer(context), _CALLBACK, ffi.NULL)


def _select(_ssl: Any, out: Any, out_size: Any, offered: Any, size: int, _: Any) -> int:
    names, at = bytes(ffi.buffer(offered, size)), 0
    while at < size:  # OpenSSL has checked the lengths (tls_parse_ctos_alpn)
        end = at + 1 + names[at]
        if names[at + 1 : end] == ACME_PROTOCOL:
            out[0], out_size[0] = _CHOSEN, len(ACME_PROTOCOL)
            return int(lib.SSL_TLSEXT_ERR_OK)
        at = end
    return int(lib.SSL_TLSEXT_ERR_ALERT_FATAL)  # alert 120, no_application_protocol


# Without state, so one for all contexts, and it lives as long as the process.
_CALLBACK = ffi.callback(_SIGNATURE, _select, error=lib.SSL_TLSEXT_ERR_ALERT_FATAL)
