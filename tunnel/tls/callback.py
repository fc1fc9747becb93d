"""The verdict inside the handshake: what OpenSSL calls when it has a peer's certificates.

OpenSSL's verification begins with a search for an anchor, of which it has none, so the first thing that it does is to report
that to the callback, before it has checked any signature. That first report is the whole verdict: the judge's. The callback
never raises: it answers 0 or 1 and files what it found on the connection whose turn it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Protocol

from OpenSSL import SSL

from tunnel.authz.authorizer import Admitted
from tunnel.errors import Denial, PeerDenied, TlsError
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import check_count
from tunnel.tls.openssl import add_client_authority, ffi, lib, pointer, sent_certificates

# What is filed as the error decides the alert (ssl_x509err2alert).
_REJECTED = 28  # alert 42, bad_certificate
_ERROR_OF_DENIAL = {
    Denial.EXPIRED: 10,  # alert 45, certificate_expired
    Denial.NOT_YET_VALID: 10,
    Denial.UNKNOWN_AUTHORITY: 20,  # alert 48, unknown_ca
    Denial.UNKNOWN_TRUST_DOMAIN: 20,
}
_DIGEST_BYTES = 32
MAX_NAMES_BYTES = 60_000  # of the names of authorities: Go's clients take messages of 64 KiB, with the rest of it
_SHA256: Final[Any] = lib.EVP_get_digestbyname(b"sha256")

Judge = Callable[[bytes, Callable[[], tuple[bytes, ...]]], Admitted]
ChainObserver = Callable[[tuple[bytes, ...]], None]  # takes what a peer sent, in DER, leaf first; it must not raise


class CurrentHandshake(Protocol):
    """The end of a connection whose handshake is at work, where the verdict is filed."""

    admitted: Admitted | None
    refusal: PeerDenied | None
    crash: BaseException | None


class _CurrentHandshakes(threading.local):
    """Whose turn it is, by thread: what waits for a policy does so on a thread of its own."""

    end: CurrentHandshake | None = None


CURRENT: Final = _CurrentHandshakes()


@dataclass(frozen=True, slots=True)
class PeerAuth:
    """What a context asks of the peer before it is admitted."""

    judge: Judge
    authorities: tuple[Certificate, ...] = ()  # told to clients, which may choose a certificate by them
    is_slow: bool = False  # the judge may wait, so it must be asked on a thread that can
    chain_observer: ChainObserver | None = None  # shown what the peer sent, whatever the verdict


@dataclass(frozen=True, slots=True)
class JudgedContext:
    """A context with its callbacks; every end keeps it, since OpenSSL's own reference keeps no callback."""

    context: SSL.Context
    callbacks: tuple[object, ...]
    judge: Judge | None = None  # none where no certificate is asked for
    anonymous: Admitted | None = None  # the admission of everyone, where no certificate is asked for
    is_slow: bool = False


def install_peer_auth(context: SSL.Context, peer_auth: PeerAuth, *others: object, is_server: bool) -> JudgedContext:
    """Demand a certificate and let a judge decide inside the handshake; `others` are callbacks that live as long."""
    verify = _verify_callback(peer_auth, _ERROR_OF_DENIAL if is_server else {})
    callback = ffi.callback("int(int, X509_STORE_CTX *)", verify, error=0, onerror=_file_crash)
    # The next line replaces OpenSSL's verdict, which has no anchor to build on, with the callback's.
    lib.SSL_CTX_set_verify(pointer(context), lib.SSL_VERIFY_PEER | lib.SSL_VERIFY_FAIL_IF_NO_PEER_CERT, callback)
    for authority in peer_auth.authorities if are_names_told(peer_auth.authorities) else ():
        with suppress(TlsError):  # a name that OpenSSL cannot read is not told; the authority counts all the same
            add_client_authority(context, authority.der)
    return JudgedContext(context, (callback, *others), peer_auth.judge, is_slow=peer_auth.is_slow)


def are_names_told(authorities: Sequence[Certificate]) -> bool:
    """Whether a server names its authorities to clients: not if their names are too long for one message (RFC 8446, 4.2.4)."""
    return sum(2 + len(authority.subject.der) for authority in authorities) <= MAX_NAMES_BYTES


def judge_again(judged: JudgedContext, certificates: Sequence[Any]) -> Admitted:
    """The verdict on what a peer has sent in a handshake that is over; raises PeerDenied."""
    if judged.anonymous is not None:
        return judged.anonymous
    if judged.judge is None or not certificates:
        raise PeerDenied(Denial.NO_CERTIFICATE, "the peer has shown no certificate")
    return judged.judge(_digest(certificates), lambda: _encode_all(certificates))


def _verify_callback(peer_auth: PeerAuth, errors: Mapping[Denial, int]) -> Callable[[int, Any], int]:
    """`errors` says which alert a denial has; the rest is bad_certificate, and for a client every one is, as in Go."""

    def verify(_ok: int, store_context: Any) -> int:
        end = CURRENT.end
        if end is None:  # a verification outside of a handshake that we drive: there is none, so fail closed
            return 0
        if end.admitted is not None:  # OpenSSL's further findings on a peer whom the judge has admitted
            lib.X509_STORE_CTX_set_error(store_context, 0)
            return 1
        try:
            end.admitted = decide(store_context)
        except PeerDenied as refusal:
            end.refusal = refusal
            lib.X509_STORE_CTX_set_error(store_context, errors.get(refusal.reason, _REJECTED))
            return 0
        finally:
            lib.ERR_clear_error()
        lib.X509_STORE_CTX_set_error(store_context, 0)
        return 1

    def decide(store_context: Any) -> Admitted:
        certificates = _list_sent(store_context)
        if peer_auth.chain_observer is not None:
            peer_auth.chain_observer(_encode_all(certificates))
        return peer_auth.judge(_digest(certificates), lambda: _encode_all(certificates))

    return verify


def _file_crash(_kind: Any, crash: BaseException, _traceback: Any) -> None:
    """What cffi calls when the callback raised after all; the handshake raises it again where it can be handled."""
    if CURRENT.end is not None:
        CURRENT.end.crash = crash


def _list_sent(store_context: Any) -> list[Any]:
    """What the peer sent, leaf first, as OpenSSL's `X509 *`, which live as long as the call that has given us the context."""
    sent = sent_certificates(store_context)
    count = lib.sk_X509_num(sent)
    check_count(count)
    return [lib.sk_X509_value(sent, at) for at in range(count)]


def _digest(certificates: Sequence[Any]) -> bytes:
    """One digest of all that was sent: a remembered verdict is for the same certificates only."""
    out = ffi.new("unsigned char[]", _DIGEST_BYTES)
    size = ffi.new("unsigned int *", _DIGEST_BYTES)
    digests = []
    for certificate in certificates:
        if lib.X509_digest(certificate, _SHA256, out, size) != 1:
            raise PeerDenied(Denial.UNREADABLE, "a certificate without a digest")
        digests.append(bytes(ffi.buffer(out)))
    return digests[0] if len(digests) == 1 else sha256(b"".join(digests)).digest()


def _encode_all(certificates: Iterable[Any]) -> tuple[bytes, ...]:
    """Each certificate in DER."""
    return tuple(map(_der, certificates))


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
