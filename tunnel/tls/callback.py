"""The verdict inside the handshake: what OpenSSL calls when it has looked at a peer's certificates.

Knows which of OpenSSL's findings only mean that its own store is empty, and how a refusal becomes an alert; must not know
bundles or rules, which the judge has. The callback never raises: it answers 0 or 1 and files what it found on the connection
whose turn it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from OpenSSL import SSL

from tunnel.authz.peer import Admitted
from tunnel.errors import Denial, PeerDenied
from tunnel.tls.openssl import ffi, lib, pointer
from tunnel.tls.verify import MAX_PATH, NO_ANCHOR_ERRORS, denial_of

# What is filed as the error decides the alert (ssl_x509err2alert): 42 bad_certificate unless said otherwise.
_REJECTED = 28
_ERROR_OF_DENIAL = {
    Denial.EXPIRED: 10,  # alert 45, certificate_expired
    Denial.UNKNOWN_AUTHORITY: 20,  # alert 48, unknown_ca
    Denial.UNKNOWN_TRUST_DOMAIN: 20,
}
_DIGEST_BYTES = 32
_SHA256: Final[Any] = lib.EVP_get_digestbyname(b"sha256")

Judge = Callable[[bytes, Callable[[], tuple[bytes, ...]]], Admitted]


class Turn(Protocol):
    """The end of a connection whose handshake is at work, where the verdict is filed."""

    admitted: Admitted | None
    refusal: PeerDenied | None
    crash: BaseException | None


class Bench:
    """Where a context's callback finds whose turn it is and who decides."""

    __slots__ = ("current", "judge")

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.current: Turn | None = None


@dataclass(frozen=True, slots=True)
class JudgedContext:
    """A context with all that its callback needs; every end keeps it, since OpenSSL's own reference keeps no callback."""

    context: SSL.Context
    bench: Bench
    callback: object


def install_judge(context: SSL.Context, judge: Judge) -> JudgedContext:
    """Demand a certificate and let `judge` decide inside the handshake."""
    bench = Bench(judge)
    callback = ffi.callback("int(int, X509_STORE_CTX *)", _verify_callback(bench), error=0, onerror=_file_crash(bench))
    # The next line switches OpenSSL's own verdict off where it only lacks an anchor; the callback is the replacement.
    lib.SSL_CTX_set_verify(pointer(context), lib.SSL_VERIFY_PEER | lib.SSL_VERIFY_FAIL_IF_NO_PEER_CERT, callback)
    return JudgedContext(context, bench, callback)


def _verify_callback(bench: Bench) -> Callable[[int, Any], int]:
    def verify(ok: int, store_context: Any) -> int:
        end = bench.current
        if end is None:  # a verification outside of a handshake that we drive: there is none, so fail closed
            return 0
        code = lib.X509_STORE_CTX_get_error(store_context)
        if not ok:
            return _go_on(end, code)
        if lib.X509_STORE_CTX_get_error_depth(store_context) != 0:
            return 1
        return _conclude(end, bench.judge, store_context)

    return verify


def _go_on(end: Turn, code: int) -> int:
    """At the errors that say "no anchor here" and at no other: the rest are OpenSSL's own findings."""
    if code in NO_ANCHOR_ERRORS:
        return 1
    text = ffi.string(lib.X509_verify_cert_error_string(code)).decode()
    end.refusal = PeerDenied(denial_of(code), text)
    return 0


def _conclude(end: Turn, judge: Judge, store_context: Any) -> int:
    try:
        end.admitted = judge(_digest(store_context), lambda: _path(store_context))
    except PeerDenied as refusal:
        end.refusal = refusal
        lib.X509_STORE_CTX_set_error(store_context, _ERROR_OF_DENIAL.get(refusal.reason, _REJECTED))
        return 0
    finally:
        lib.ERR_clear_error()
    lib.X509_STORE_CTX_set_error(store_context, 0)
    return 1


def _file_crash(bench: Bench) -> Callable[[Any, BaseException, Any], None]:
    """What cffi calls when the callback raised after all; the handshake raises it again where it can be handled."""

    def on_error(_kind: Any, crash: BaseException, _traceback: Any) -> None:
        if bench.current is not None:
            bench.current.crash = crash

    return on_error


def _digest(store_context: Any) -> bytes:
    out = ffi.new("unsigned char[]", _DIGEST_BYTES)
    size = ffi.new("unsigned int *", _DIGEST_BYTES)
    leaf = lib.X509_STORE_CTX_get0_cert(store_context)
    if lib.X509_digest(leaf, _SHA256, out, size) != 1:
        raise PeerDenied(Denial.UNREADABLE, "the leaf certificate has no digest")
    return bytes(ffi.buffer(out))


def _path(store_context: Any) -> tuple[bytes, ...]:
    """The path that OpenSSL built from what the peer sent, leaf first, each certificate as DER."""
    chain = lib.X509_STORE_CTX_get1_chain(store_context)
    if chain == ffi.NULL:
        return ()
    certificates = [lib.sk_X509_value(chain, at) for at in range(lib.sk_X509_num(chain))]
    try:
        return tuple(_der(certificate) for certificate in certificates[: MAX_PATH + 1])
    finally:
        for certificate in certificates:
            lib.X509_free(certificate)
        lib.sk_X509_free(chain)


def _der(certificate: Any) -> bytes:
    memory = lib.BIO_new(lib.BIO_s_mem())
    try:
        lib.i2d_X509_bio(memory, certificate)
        parts = []
        piece = ffi.new("char[]", 4096)
        while (size := lib.BIO_read(memory, piece, 4096)) > 0:
            parts.append(bytes(ffi.buffer(piece, size)))
        return b"".join(parts)
    finally:
        lib.BIO_free(memory)
