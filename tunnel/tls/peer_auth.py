"""Peer authentication inside the handshake: the certificate request, and OpenSSL's verify callback.

OpenSSL has no trust anchors here, so its first step, before it checks any signature, is to report a missing anchor to the
callback. The answer to this first call is the whole decision. The callback never raises: it returns 0 or 1, and stores the
result on the connection whose handshake is running.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Final, Protocol

from tunnel.authz.authorizer import Admitted
from tunnel.authz.peer import SentCertificates
from tunnel.errors import Denial, PeerDenied, TlsError
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import check_count
from tunnel.tls.openssl import Context, add_client_authority, ffi, lib, load_certificate, sent_certificates

# The error that is set decides the alert (ssl_x509err2alert).
_REJECTED = 28  # alert 42, bad_certificate
_ERROR_OF_DENIAL = {
    Denial.EXPIRED: 10,  # alert 45, certificate_expired
    Denial.NOT_YET_VALID: 10,
    Denial.REVOKED: 23,  # alert 44, certificate_revoked
    Denial.UNKNOWN_AUTHORITY: 20,  # alert 48, unknown_ca
    Denial.UNKNOWN_TRUST_DOMAIN: 20,
}
_DIGEST_BYTES = 32
_FEW = 3  # certificates whose digests are a key of the cache as they are
MAX_NAMES_BYTES = 60_000  # of the authorities' names: Go's clients accept a CertificateRequest of at most 64 KiB
_SHA256: Final[Any] = lib.EVP_get_digestbyname(b"sha256")

# Takes the digest of the certificates that a peer sent, a function that returns them in DER, leaf first, and the client that
# connected to us (`tcp:HOST:PORT`); raises PeerDenied.
Admit = Callable[[bytes, Callable[[], tuple[bytes, ...]], str], Admitted]
ChainObserver = Callable[[tuple[bytes, ...]], None]  # takes the certificates in DER, leaf first; it must not raise


class CurrentHandshake(Protocol):
    """The connection whose handshake is running; the callback stores its result here."""

    source: str
    admitted: Admitted | None
    refusal: PeerDenied | None
    crash: BaseException | None


class _CurrentHandshakes(threading.local):
    """The running handshake of each thread: one that evaluates a policy runs on a thread of its own."""

    end: CurrentHandshake | None = None


CURRENT: Final = _CurrentHandshakes()


class AuthorityNames:
    """The authorities that a server names to clients, which may select a certificate by them; many contexts can share it."""

    def __init__(self, authorities: Sequence[Certificate] = ()) -> None:
        self.authorities = authorities

    def add_to(self, context: Context) -> None:
        """Name them in each CertificateRequest, if they are not too many."""
        for certificate in self._parsed:
            with suppress(TlsError):  # a name that OpenSSL cannot encode is not sent; the authority is trusted all the same
                add_client_authority(context, certificate)

    @cached_property
    def _parsed(self) -> Sequence[Any]:
        """The certificates as `X509 *`; each takes OpenSSL 23 us, as many as the system trusts take 3 ms."""
        parsed = []
        for authority in self.authorities if can_send_authority_names(self.authorities) else ():
            with suppress(TlsError):
                parsed.append(load_certificate(authority.der))
        return parsed


_NO_NAMES = AuthorityNames()


@dataclass(frozen=True, slots=True)
class PeerAuth:
    """How a context authenticates and authorizes peers."""

    admit: Admit
    names: AuthorityNames = _NO_NAMES
    is_slow: bool = False  # `admit` may block, so the handshake must run on a thread
    chain_observer: ChainObserver | None = None  # called with the certificates of every peer, also of those refused


@dataclass(frozen=True, slots=True)
class PeerAuthContext:
    """An OpenSSL context with its callbacks; every connection keeps it: OpenSSL's reference does not keep them alive."""

    context: Context
    callbacks: tuple[object, ...]
    admit: Admit | None = None  # None if no certificate is requested
    anonymous: Admitted | None = None  # the admission of every peer if no certificate is requested
    is_slow: bool = False


def install_peer_auth(context: Context, peer_auth: PeerAuth, *others: object, is_server: bool) -> PeerAuthContext:
    """Require a certificate and decide on it inside the handshake; `others` are callbacks with the same lifetime."""
    nameless = replace(peer_auth, names=_NO_NAMES)  # the callback would keep the parsed certificates
    verify = _verify_callback(nameless, _ERROR_OF_DENIAL if is_server else {})  # a Go client sends bad_certificate only
    callback = ffi.callback("int(int, X509_STORE_CTX *)", verify, error=0, onerror=_store_crash)
    # The next line replaces OpenSSL's verification, which has no anchor, by the callback.
    lib.SSL_CTX_set_verify(context, lib.SSL_VERIFY_PEER | lib.SSL_VERIFY_FAIL_IF_NO_PEER_CERT, callback)
    peer_auth.names.add_to(context)
    return PeerAuthContext(context, (callback, *others), peer_auth.admit, is_slow=peer_auth.is_slow)


def can_send_authority_names(authorities: Sequence[Certificate]) -> bool:
    """Whether the authorities' names fit into one CertificateRequest (RFC 8446, 4.2.4); if not, a server sends none."""
    return sum(2 + len(authority.subject.der) for authority in authorities) <= MAX_NAMES_BYTES


def readmit(peer_auth: PeerAuthContext, sent: SentCertificates | None, source: str = "") -> Admitted:
    """Decide on the certificates of a handshake that has ended, with the client `source`; raises PeerDenied."""
    if peer_auth.anonymous is not None:
        return peer_auth.anonymous
    if peer_auth.admit is None or sent is None:
        raise PeerDenied(Denial.NO_CERTIFICATE, "the peer has sent no certificate")
    return peer_auth.admit(sent.digest, lambda: sent.chain, source)


def _verify_callback(peer_auth: PeerAuth, errors: Mapping[Denial, int]) -> Callable[[int, Any], int]:
    """Return the callback; `errors` maps a denial to the error of its alert, all others are bad_certificate."""

    def verify(_ok: int, store_context: Any) -> int:
        end = CURRENT.end
        if end is None:  # verification outside a handshake of ours: fail closed
            return 0
        if end.admitted is not None:  # further errors that OpenSSL reports for an admitted peer
            lib.X509_STORE_CTX_set_error(store_context, 0)
            return 1
        try:
            end.admitted = decide(store_context, end.source)
        except PeerDenied as refusal:
            end.refusal = refusal
            lib.X509_STORE_CTX_set_error(store_context, errors.get(refusal.reason, _REJECTED))
            return 0
        finally:
            lib.ERR_clear_error()
        lib.X509_STORE_CTX_set_error(store_context, 0)
        return 1

    def decide(store_context: Any, source: str) -> Admitted:
        certificates = _list_sent(store_context)
        if peer_auth.chain_observer is not None:
            peer_auth.chain_observer(_encode_all(certificates))
        return peer_auth.admit(_digest(certificates), lambda: _encode_all(certificates), source)

    return verify


def _store_crash(_kind: Any, crash: BaseException, _traceback: Any) -> None:
    """Store an exception that the callback raised, which cffi reports here; the handshake raises it again."""
    if CURRENT.end is not None:  # pragma: no branch - without an end the callback has returned already
        CURRENT.end.crash = crash


def _list_sent(store_context: Any) -> list[Any]:
    """Return the certificates sent, leaf first, as `X509 *` that are valid until the callback returns."""
    sent = sent_certificates(store_context)
    count = lib.sk_X509_num(sent)
    check_count(count)
    return [lib.sk_X509_value(sent, at) for at in range(count)]


def _digest(certificates: Sequence[Any]) -> bytes:
    """Return the digests of all certificates sent, or one of many digests: the key of the admission cache."""
    out = ffi.new("unsigned char[]", _DIGEST_BYTES)
    size = ffi.new("unsigned int *", _DIGEST_BYTES)
    digests = []
    for certificate in certificates:
        if lib.X509_digest(certificate, _SHA256, out, size) != 1:  # pragma: no cover - only when memory is short
            raise PeerDenied(Denial.UNREADABLE, "the digest of a certificate cannot be computed")
        digests.append(bytes(ffi.buffer(out)))
    joined = b"".join(digests)
    if len(digests) <= _FEW:
        return joined
    from hashlib import sha256  # with the OpenSSL of the system: 0.5 MiB

    return sha256(joined).digest()


def _encode_all(certificates: Iterable[Any]) -> tuple[bytes, ...]:
    """Return each certificate in DER."""
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
