"""OpenSSL's functions in the library of `cryptography`, through private names whose existence is checked at import.

pyOpenSSL uses the same names, but its public calls allocate and copy each time, which costs 40 % of a small message. Its import
takes 40 ms and 3 MiB, because it loads all of X.509.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any, Final

from cryptography.hazmat.bindings._rust import _openssl

from tunnel.errors import Denial, PeerDenied, TlsError, TlsFault

_NAMES = """
    OPENSSL_VERSION OpenSSL_version
    SSL_new SSL_free SSL_set_bio SSL_set_accept_state SSL_set_connect_state SSL_set_tlsext_host_name SSL_do_handshake
    SSL_read SSL_write SSL_shutdown SSL_get_error SSL_get_version SSL_version SSL_session_reused
    SSL_get_peer_certificate SSL_get_peer_cert_chain SSL_get_current_cipher SSL_CIPHER_get_name SSL_get0_group_name
    SSL_get_shutdown SSL_RECEIVED_SHUTDOWN SSL_ERROR_WANT_READ SSL_ERROR_ZERO_RETURN SSL_ERROR_SYSCALL
    SSL_get_servername TLSEXT_NAMETYPE_host_name SSL_get0_alpn_selected
    TLS_method TLS1_2_VERSION TLS1_3_VERSION SSL_CTX_new SSL_CTX_free
    SSL_CTX_set_min_proto_version SSL_CTX_set_max_proto_version SSL_CTX_set_cipher_list SSL_CTX_set_ciphersuites
    SSL_CTX_set_options SSL_OP_CIPHER_SERVER_PREFERENCE SSL_OP_NO_RENEGOTIATION SSL_OP_NO_COMPRESSION SSL_OP_NO_TICKET
    SSL_CTX_set_session_cache_mode SSL_SESS_CACHE_OFF SSL_CTX_set_session_id_context
    SSL_CTX_set_mode SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
    SSL_CTX_set_verify SSL_CTX_set_verify_depth SSL_VERIFY_PEER SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    SSL_CTX_use_certificate SSL_CTX_add_extra_chain_cert SSL_CTX_add_client_CA
    SSL_CTX_use_PrivateKey SSL_CTX_check_private_key d2i_PrivateKey_bio EVP_PKEY_free
    SSL_CTX_set_alpn_protos SSL_CTX_set_alpn_select_cb SSL_TLSEXT_ERR_OK SSL_TLSEXT_ERR_ALERT_FATAL
    BIO_new BIO_get_mem_data BIO_new_mem_buf BIO_set_mem_eof_return BIO_s_mem BIO_read BIO_write BIO_free
    X509_up_ref X509_free d2i_X509_bio i2d_X509_bio X509_digest EVP_get_digestbyname
    X509_STORE_CTX_new X509_STORE_CTX_init X509_STORE_CTX_free X509_STORE_CTX_set_error X509_STORE_new X509_STORE_free
    sk_X509_new_null sk_X509_num sk_X509_value sk_X509_free
    ERR_get_error ERR_peek_error ERR_clear_error ERR_GET_REASON ERR_reason_error_string
    SSL_get0_verified_chain SSL_get_session sk_X509_push
""".split()
if missing := [name for name in _NAMES if not hasattr(_openssl.lib, name)]:
    raise ImportError(f"this version of cryptography lacks {', '.join(missing)}: use the versions in pyproject.toml")

ffi: Final[Any] = _openssl.ffi
# A module, because the interpreter finds the names of a module fastest. The bindings have 800 more, which take 0.5 MiB.
lib: Final[Any] = ModuleType("lib")
vars(lib).update({name: getattr(_openssl.lib, name) for name in _NAMES})

VERSION: Final = ffi.string(lib.OpenSSL_version(lib.OPENSSL_VERSION)).decode("ascii", "replace").split()[1]  # such as 3.5.1
Context = Any  # `SSL_CTX *`


def new_context() -> Context:
    """Return a new context for both roles and all versions of TLS, which is freed with the last reference."""
    context = lib.SSL_CTX_new(lib.TLS_method())
    require(context != ffi.NULL)
    context = ffi.gc(context, lib.SSL_CTX_free)
    # Without SSL_MODE_ENABLE_PARTIAL_WRITE one call writes several records.
    lib.SSL_CTX_set_mode(context, lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)
    return context


def require(is_successful: bool) -> None:
    """Raise TlsError with OpenSSL's oldest error if a call has failed."""
    if not is_successful:
        raise take_failure()


_LIMIT = 102_400  # SSL_MAX_CERT_LIST_DEFAULT
_CONTEXT_WORDS, _CONNECTION_WORDS = 128, 400  # of the two structures that are searched for the limit


def _find_limit() -> int | None:
    """Return the offset, in words, of a context's limit for Certificate messages; None if it is not certain.

    SSL_CTX_set_max_cert_list is a macro, which the library does not export. The offset is the only one with the default value,
    and a connection inherits what is written there.
    """
    context = new_context()
    words = ffi.cast("size_t *", context)
    places = [place for place in range(_CONTEXT_WORDS) if words[place] == _LIMIT]
    if len(places) != 1:
        return None
    before = _places_in_connection(context, _LIMIT)
    words[places[0]] = _LIMIT + 1
    after = _places_in_connection(context, _LIMIT + 1)
    return places[0] if len(before) == 1 and before == after else None


def _places_in_connection(context: Context, value: int) -> list[int]:
    connection = lib.SSL_new(context)
    words = ffi.cast("size_t *", connection)
    try:
        return [place for place in range(_CONNECTION_WORDS) if words[place] == value]
    finally:
        lib.SSL_free(connection)


_MOST_PLACES = 8  # the structure begins with store, leaf, certificates


def _find_sent() -> int:
    """Return the offset, in pointers, of the peer's certificates in an X509_STORE_CTX.

    The library does not export X509_STORE_CTX_get0_untrusted, so the offset is searched in a context with a known list.
    """
    context, store, sent = lib.X509_STORE_CTX_new(), lib.X509_STORE_new(), lib.sk_X509_new_null()
    try:
        if lib.X509_STORE_CTX_init(context, store, ffi.NULL, sent) == 1:
            words = ffi.cast("void **", context)
            for place in range(_MOST_PLACES):
                if words[place] == sent:
                    return place
    finally:
        lib.X509_STORE_CTX_free(context)
        lib.X509_STORE_free(store)
        lib.sk_X509_free(sent)
    raise ImportError("unknown layout of X509_STORE_CTX in this OpenSSL: use the versions in pyproject.toml")


_SENT_AT: Final = _find_sent()
_SENT_TYPE: Final[Any] = ffi.typeof(lib.sk_X509_new_null).result

_LIMIT_AT: Final = _find_limit()

_SESSION_WORDS = 100  # of an SSL_SESSION, less than it has: 116 in OpenSSL 3 and 4
_PEER_AT: list[int] = []  # the offset of the peer's certificate in it, in pointers; found with the first certificate


def _begins_with_count() -> bool:
    """Whether the structure of a list begins with the number of its elements."""
    some = lib.sk_X509_new_null()
    for _ in range(3):
        lib.sk_X509_push(some, ffi.NULL)
    first = ffi.cast("int *", some)[0]
    lib.sk_X509_free(some)
    return bool(first == 3)


_IS_LIST_KNOWN: Final = _begins_with_count()

_WITHOUT_DATA = {298, 409}  # SSL_R_RECORD_TOO_SMALL, SSL_R_TOO_MANY_WARN_ALERTS: OpenSSL's limits on records without data
_NO_CERTIFICATE = 199  # SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE
_ALERT_BASE = 1000  # SSL_AD_REASON_OFFSET: a reason above it is the alert that the peer sent


def load_certificate(der: bytes) -> Any:
    """Return the `X509 *` of a certificate; raises TlsError for one that OpenSSL rejects."""
    memory = lib.BIO_new_mem_buf(der, len(der))
    certificate = lib.d2i_X509_bio(memory, ffi.NULL)
    lib.BIO_free(memory)
    require(certificate != ffi.NULL)
    return ffi.gc(certificate, lib.X509_free)


def use_chain(context: Context, leaf: bytes, others: Iterable[bytes]) -> None:
    """Present these certificates in DER; raises TlsError."""
    require(lib.SSL_CTX_use_certificate(context, load_certificate(leaf)) == 1)
    for der in others:
        certificate = load_certificate(der)
        require(lib.SSL_CTX_add_extra_chain_cert(context, certificate) == 1)
        lib.X509_up_ref(certificate)  # the context owns one reference, and so do we


def use_private_key(context: Context, der: bytes) -> None:
    """Use this key (PKCS#8 in DER), which must be the one of the certificate in use; raises TlsError."""
    memory = lib.BIO_new_mem_buf(der, len(der))
    key = lib.d2i_PrivateKey_bio(memory, ffi.NULL)
    lib.BIO_free(memory)
    require(key != ffi.NULL)
    try:
        require(lib.SSL_CTX_use_PrivateKey(context, key) == 1 and lib.SSL_CTX_check_private_key(context) == 1)
    finally:
        lib.EVP_PKEY_free(key)


def add_client_authority(context: Context, certificate: Any) -> None:
    """Name the authority of an `X509 *` to clients in the CertificateRequest; raises TlsError."""
    require(lib.SSL_CTX_add_client_CA(context, certificate) == 1)


def raise_certificate_limit(context: Context, size: int) -> None:
    """Accept Certificate messages of up to `size` bytes instead of OpenSSL's 100 KiB."""
    if _LIMIT_AT is not None:
        ffi.cast("size_t *", context)[_LIMIT_AT] = size


def sent_certificates(store_context: Any) -> Any:
    """Return OpenSSL's list of the peer's certificates, leaf first, inside the verify callback."""
    return ffi.cast(_SENT_TYPE, ffi.cast("void **", store_context)[_SENT_AT])


def free_certificates(ssl: Any) -> None:
    """Free the certificates of the peer after the handshake: OpenSSL keeps them, decoded, as long as the connection.

    One with a key of P-256 takes 9 KB. OpenSSL has no function for it: without certainty about its structures nothing is freed.
    """
    leaf = lib.SSL_get_peer_certificate(ssl)  # and one more reference to it
    if leaf == ffi.NULL:
        return
    words = ffi.cast("void **", lib.SSL_get_session(ssl))
    if not _PEER_AT:
        places = [place for place in range(_SESSION_WORDS) if words[place] == leaf]
        _PEER_AT.extend(places if len(places) == 1 else ())
    if _IS_LIST_KNOWN and _PEER_AT and words[_PEER_AT[0]] == leaf:
        words[_PEER_AT[0]] = ffi.NULL
        lib.X509_free(leaf)
        _empty(lib.SSL_get_peer_cert_chain(ssl))
        _empty(lib.SSL_get0_verified_chain(ssl))
    lib.X509_free(leaf)


def _empty(certificates: Any) -> None:
    """Free the elements of a list that stays where it is."""
    if certificates != ffi.NULL:
        for place in range(lib.sk_X509_num(certificates)):
            lib.X509_free(lib.sk_X509_value(certificates, place))
        ffi.cast("int *", certificates)[0] = 0


def take_handshake_failure() -> TlsError | PeerDenied:
    """Return OpenSSL's oldest error in a handshake, and clear the error queue."""
    has_no_certificate = lib.ERR_GET_REASON(lib.ERR_peek_error()) == _NO_CERTIFICATE
    failure = take_failure()
    return PeerDenied(Denial.NO_CERTIFICATE, str(failure)) if has_no_certificate else failure


def take_failure() -> TlsError:
    """Return OpenSSL's oldest error, and clear the error queue."""
    code = lib.ERR_get_error()
    lib.ERR_clear_error()
    if not code:
        return TlsError(TlsFault.PROTOCOL, "connection ended inside the protocol")
    reason = lib.ERR_GET_REASON(code)
    text = lib.ERR_reason_error_string(code)
    words = ffi.string(text).decode() if text != ffi.NULL else f"error {reason}"
    if _ALERT_BASE < reason < _ALERT_BASE + 256:
        return TlsError(TlsFault.REFUSED, words, reason - _ALERT_BASE)
    return TlsError(TlsFault.NO_DATA if reason in _WITHOUT_DATA else TlsFault.PROTOCOL, words)
