"""OpenSSL's library as pyOpenSSL itself reaches it.

Knows the private names by which it is reached, which stand here and nowhere else, and checks at import that each is there;
must not know connections. The public calls allocate and copy at every turn, which costs 40 % of a small message.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL

from tunnel.errors import TlsError, TlsFault

lib: Final[Any] = SSL._lib  # type: ignore[attr-defined]  # not exported
ffi: Final[Any] = SSL._ffi  # type: ignore[attr-defined]  # likewise

_NAMES = """
    SSL_new SSL_free SSL_set_bio SSL_set_accept_state SSL_set_connect_state SSL_set_tlsext_host_name SSL_do_handshake
    SSL_read SSL_write SSL_shutdown SSL_get_error SSL_get_version SSL_session_reused
    SSL_get_servername SSL_get0_alpn_selected TLSEXT_NAMETYPE_host_name SSL_CTX_set_verify SSL_CTX_clear_mode
    SSL_MODE_ENABLE_PARTIAL_WRITE
    SSL_VERIFY_PEER SSL_VERIFY_FAIL_IF_NO_PEER_CERT SSL_ERROR_WANT_READ SSL_ERROR_ZERO_RETURN
    BIO_new BIO_new_mem_buf BIO_set_mem_eof_return BIO_s_mem BIO_read BIO_write BIO_free i2d_X509_bio
    X509_STORE_CTX_get_error X509_STORE_CTX_get_error_depth X509_STORE_CTX_set_error X509_STORE_CTX_get0_cert
    X509_STORE_CTX_get1_chain X509_digest X509_free X509_verify_cert_error_string EVP_get_digestbyname
    sk_X509_num sk_X509_value sk_X509_free ERR_get_error ERR_clear_error ERR_reason_error_string
    ERR_GET_REASON
    SSL_CTX_set_alpn_select_cb SSL_TLSEXT_ERR_OK SSL_TLSEXT_ERR_ALERT_FATAL
""".split()
if missing := [name for name in _NAMES if not hasattr(lib, name)]:
    raise ImportError(f"this pyOpenSSL or cryptography lacks {', '.join(missing)}: use the versions in pyproject.toml")

_ALERT_BASE = 1000  # SSL_AD_REASON_OFFSET: a reason above it is the alert that the peer sent


def pointer(context: SSL.Context) -> Any:
    """The `SSL_CTX *` of a context."""
    return context._context


def take_failure() -> TlsError:
    """OpenSSL's oldest error, with the queue emptied behind it."""
    code = lib.ERR_get_error()
    lib.ERR_clear_error()
    if not code:
        return TlsError(TlsFault.PROTOCOL, "connection ended inside the protocol")
    reason = lib.ERR_GET_REASON(code)
    text = lib.ERR_reason_error_string(code)
    words = ffi.string(text).decode() if text != ffi.NULL else f"error {reason}"
    if _ALERT_BASE < reason < _ALERT_BASE + 256:
        return TlsError(TlsFault.REFUSED, words, reason - _ALERT_BASE)
    return TlsError(TlsFault.PROTOCOL, words)
