"""The verdict inside the handshake: what OpenSSL calls when it has looked at a peer's certificates.

Knows which of OpenSSL's findings only mean that it has no anchor, and how a refusal becomes an alert; must not know
bundles or rules, which the judge has. The callback never raises: it answers 0 or 1 and files what it found on the connection
whose turn it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cryptography import x509
from OpenSSL import SSL

from tunnel.authz.peer import Admitted
from tunnel.errors import Denial, PeerDenied, WireError
from tunnel.spiffe.x509 import parse_certificate
from tunnel.tls.openssl import ffi, lib, pointer
from tunnel.tls.path import AUTHORITY_ERRORS, MAX_PATH, NO_ANCHOR_ERRORS, WRONG_PURPOSE, denial_of, refuse_certificate

# What is filed as the error decides the alert (ssl_x509err2alert).
_REJECTED = 28  # alert 42, bad_certificate
_ERROR_OF_DENIAL = {
    Denial.EXPIRED: 10,  # alert 45, certificate_expired
    Denial.NOT_YET_VALID: 10,
    Denial.UNKNOWN_AUTHORITY: 20,  # alert 48, unknown_ca
    Denial.UNKNOWN_TRUST_DOMAIN: 20,
}
_DIGEST_BYTES = 32
_SHA256: Final[Any] = lib.EVP_get_digestbyname(b"sha256")

Judge = Callable[[bytes, Callable[[], tuple[bytes, ...]]], Admitted]
Witness = Callable[[tuple[bytes, ...]], None]  # takes a path of certificates in DER, leaf first; it must not raise


class Turn(Protocol):
    """The end of a connection whose handshake is at work, where the verdict is filed."""

    admitted: Admitted | None
    refusal: PeerDenied | None
    crash: BaseException | None


class _Turns(threading.local):
    """Whose turn it is, by thread: what waits for a policy does so on a thread of its own."""

    end: Turn | None = None


TURNS: Final = _Turns()


@dataclass(frozen=True, slots=True)
class Demand:
    """What a context asks of the peer before it is admitted."""

    judge: Judge
    authorities: tuple[x509.Certificate, ...] = ()  # told to clients, which may choose a certificate by them
    is_leaf_enough: bool = False  # a pinned key: what OpenSSL thinks of path, dates and purpose does not count
    is_slow: bool = False  # the judge may wait, so it must be asked on a thread that can
    witness: Witness | None = None  # shown what the peer sent, whatever the verdict


@dataclass(frozen=True, slots=True)
class JudgedContext:
    """A context with all that its callback needs; every end keeps it, since OpenSSL's own reference keeps no callback."""

    context: SSL.Context
    callback: object
    unasked: Admitted | None = None  # the admission of everyone, where no certificate is asked for
    is_slow: bool = False


def install_demand(context: SSL.Context, demand: Demand, *, is_server: bool) -> JudgedContext:
    """Demand a certificate and let a judge decide inside the handshake."""
    verify = _verify_callback(demand, _ERROR_OF_DENIAL if is_server else {})
    callback = ffi.callback("int(int, X509_STORE_CTX *)", verify, error=0, onerror=_file_crash)
    # The next line switches OpenSSL's own verdict off where it only lacks an anchor; the callback is the replacement.
    lib.SSL_CTX_set_verify(pointer(context), lib.SSL_VERIFY_PEER | lib.SSL_VERIFY_FAIL_IF_NO_PEER_CERT, callback)
    for authority in demand.authorities:
        context.add_client_ca(authority)
    return JudgedContext(context, callback, is_slow=demand.is_slow)


def _verify_callback(demand: Demand, errors: Mapping[Denial, int]) -> Callable[[int, Any], int]:
    """`errors` says which alert a denial has; the rest is bad_certificate, and for a client every one is, as in Go."""

    def verify(ok: int, store_context: Any) -> int:
        end = TURNS.end
        if end is None:  # a verification outside of a handshake that we drive: there is none, so fail closed
            return 0
        code, depth = lib.X509_STORE_CTX_get_error(store_context), lib.X509_STORE_CTX_get_error_depth(store_context)
        if not ok:
            if is_for_the_judge(code, depth):
                return 1
            attest(store_context)
            return refuse(end, store_context, _describe_error(store_context, code, depth))
        if depth:
            return 1
        attest(store_context)
        return conclude(end, store_context)

    def attest(store_context: Any) -> None:
        if demand.witness is not None:
            demand.witness(_path(store_context))

    def is_for_the_judge(code: int, depth: int) -> bool:
        """Errors that say "no anchor here", and what the judge looks at itself; the rest are OpenSSL's own findings.

        The judge has its own rule for purposes. It has OpenSSL build the path to an anchor of ours anew: what is wrong with an
        authority that the peer sent counts there, if that path needs it.
        """
        if demand.is_leaf_enough or code in NO_ANCHOR_ERRORS or code == WRONG_PURPOSE:
            return True
        return depth > 0 and code in AUTHORITY_ERRORS

    def conclude(end: Turn, store_context: Any) -> int:
        try:
            end.admitted = demand.judge(_digest(store_context), lambda: _path(store_context))
        except PeerDenied as refusal:
            return refuse(end, store_context, refusal)
        finally:
            lib.ERR_clear_error()
        lib.X509_STORE_CTX_set_error(store_context, 0)
        return 1

    def refuse(end: Turn, store_context: Any, refusal: PeerDenied) -> int:
        end.refusal = refusal
        lib.X509_STORE_CTX_set_error(store_context, errors.get(refusal.reason, _REJECTED))
        return 0

    return verify


def _describe_error(store_context: Any, code: int, depth: int) -> PeerDenied:
    """OpenSSL's finding on one certificate of the path."""
    text = ffi.string(lib.X509_verify_cert_error_string(code)).decode()
    current = lib.X509_STORE_CTX_get_current_cert(store_context)
    try:
        certificate = parse_certificate(_der(current)) if current != ffi.NULL else None
    except WireError:
        certificate = None
    if certificate is None:
        return PeerDenied(denial_of(code), f"certificate {depth + 1} of the path: {text}")
    return refuse_certificate(denial_of(code), depth, certificate, text)


def _file_crash(_kind: Any, crash: BaseException, _traceback: Any) -> None:
    """What cffi calls when the callback raised after all; the handshake raises it again where it can be handled."""
    if TURNS.end is not None:
        TURNS.end.crash = crash


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
