"""One end of a TLS connection, worked by bytes through shared buffers.

Knows OpenSSL's calls and the private names by which pyOpenSSL's own library reaches them, which stand here and nowhere
else; must not know sockets, SPIFFE or rules. Rules for whoever edits this file:

1. Whole records only. What is cut inside a record waits outside of OpenSSL, so its memory is empty between two calls, the
   number of reads that are due is known, and a FIN inside a record can be told from one between two.
2. A memory BIO keeps the largest size it ever had: what is written to one is small, large input is read where it lies,
   and what was made for sending is taken every few records.
3. Whoever finds an error empties OpenSSL's error queue, since a stale entry turns the next "want read" into a failure.
4. The callback never raises: it answers 0 or 1 and files what it found on the connection whose turn it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL

from tunnel.authz.peer import Admitted
from tunnel.errors import Denial, PeerDenied
from tunnel.tls.verify import MAX_PATH, NO_ANCHOR_ERRORS, denial_of

_lib: Final[Any] = SSL._lib  # type: ignore[attr-defined]  # not exported, and the public calls copy at each turn
_ffi: Final[Any] = SSL._ffi  # type: ignore[attr-defined]  # likewise

_NAMES = """
    SSL_new SSL_free SSL_set_bio SSL_set_accept_state SSL_set_connect_state SSL_set_tlsext_host_name SSL_do_handshake
    SSL_read SSL_write SSL_shutdown SSL_get_error SSL_get_version SSL_session_reused SSL_CTX_set_verify SSL_CTX_clear_mode
    SSL_MODE_ENABLE_PARTIAL_WRITE
    SSL_VERIFY_PEER SSL_VERIFY_FAIL_IF_NO_PEER_CERT SSL_ERROR_WANT_READ SSL_ERROR_ZERO_RETURN
    BIO_new BIO_new_mem_buf BIO_set_mem_eof_return BIO_s_mem BIO_read BIO_write BIO_free d2i_X509_bio i2d_X509_bio
    X509_STORE_CTX_get_error X509_STORE_CTX_get_error_depth X509_STORE_CTX_set_error X509_STORE_CTX_get0_cert
    X509_STORE_CTX_get1_chain X509_digest X509_free X509_verify_cert_error_string EVP_get_digestbyname
    sk_X509_num sk_X509_value sk_X509_free ERR_get_error ERR_peek_error ERR_clear_error ERR_reason_error_string
    ERR_GET_REASON
""".split()
if missing := [name for name in _NAMES if not hasattr(_lib, name)]:
    raise ImportError(f"this pyOpenSSL or cryptography lacks {', '.join(missing)}: use the versions in pyproject.toml")

# Looked up once: an attribute of the library is a search by name at each call.
_SSL_read, _SSL_write, _BIO_read, _BIO_write = _lib.SSL_read, _lib.SSL_write, _lib.BIO_read, _lib.BIO_write

_INBOX_BYTES = 256 * 1024
_RECORD_BYTES = 16384  # of plaintext, RFC 8446 5.1
_MAX_RECORD = 5 + _RECORD_BYTES + 2048  # RFC 5246 6.2.3 allows more overhead than RFC 8446 5.2
_PIECE_BYTES = 4 * _RECORD_BYTES  # encrypted in one call: more would make the BIO larger, less costs more calls
SMALL_HEADS = 1024
_SEAL_ROOM = 64 * 1024  # headers and tags of an inbox full of records, and what was left to say before
_ALERT_BASE = 1000  # SSL_AD_REASON_OFFSET: a reason above it is the alert that the peer sent
_DIGEST_BYTES = 32

# What the callback files as the error decides the alert (ssl_x509err2alert): 42 bad_certificate unless said otherwise.
_REJECTED = 28
_ERROR_OF_DENIAL = {
    Denial.EXPIRED: 10,  # alert 45, certificate_expired
    Denial.UNKNOWN_AUTHORITY: 20,  # alert 48, unknown_ca
    Denial.UNKNOWN_TRUST_DOMAIN: 20,
}

Judge = Callable[[bytes, Callable[[], tuple[bytes, ...]]], Admitted]


class TlsError(Exception):
    """The connection cannot go on: OpenSSL's reason, and the alert when it was the peer who ended it."""

    def __init__(self, text: str, alert: int | None = None) -> None:
        super().__init__(text)
        self.alert = alert


class Buffers:
    """The working memory of every connection of one loop: what came in, what is to go out."""

    __slots__ = ("inbox", "inbox_at", "inbox_view", "outbox_at", "outbox_heads", "outbox_view")

    def __init__(self) -> None:
        self.inbox = bytearray(_INBOX_BYTES)
        self.inbox_view = memoryview(self.inbox)
        self.inbox_at = _ffi.from_buffer(self.inbox)
        outbox = bytearray(_INBOX_BYTES + _SEAL_ROOM)
        self.outbox_view = memoryview(outbox)
        self.outbox_at = _ffi.from_buffer(outbox)
        # The first n bytes of the outbox, for small n: cutting a view costs more than finding one.
        self.outbox_heads = [self.outbox_view[:size] for size in range(SMALL_HEADS)]


class Bench:
    """Where a context's callback finds whose turn it is and who decides."""

    __slots__ = ("current", "judge")

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.current: TlsEnd | None = None


def install_judge(context: SSL.Context, judge: Judge) -> tuple[Bench, object]:
    """Demand a certificate and let `judge` decide inside the handshake; the result must live as long as the context."""
    bench = Bench(judge)
    _lib.SSL_CTX_clear_mode(_pointer(context), _lib.SSL_MODE_ENABLE_PARTIAL_WRITE)  # one call writes several records
    callback = _ffi.callback("int(int, X509_STORE_CTX *)", _verify_callback(bench), error=0, onerror=_file_crash(bench))
    # The next line switches OpenSSL's own verdict off where it only lacks an anchor; the callback is the replacement.
    _lib.SSL_CTX_set_verify(_pointer(context), _lib.SSL_VERIFY_PEER | _lib.SSL_VERIFY_FAIL_IF_NO_PEER_CERT, callback)
    return bench, callback


def _verify_callback(bench: Bench) -> Callable[[int, Any], int]:
    def verify(ok: int, store_context: Any) -> int:
        end = bench.current
        if end is None:  # a verification outside of a handshake that we drive: there is none, so fail closed
            return 0
        code = _lib.X509_STORE_CTX_get_error(store_context)
        if not ok:
            return _go_on(end, code)
        if _lib.X509_STORE_CTX_get_error_depth(store_context) != 0:
            return 1
        return _conclude(end, bench.judge, store_context)

    return verify


def _go_on(end: TlsEnd, code: int) -> int:
    """At the errors that say "no anchor here" and at no other: the rest are OpenSSL's own findings."""
    if code in NO_ANCHOR_ERRORS:
        return 1
    text = _ffi.string(_lib.X509_verify_cert_error_string(code)).decode()
    end.refusal = PeerDenied(denial_of(code), text)
    return 0


def _conclude(end: TlsEnd, judge: Judge, store_context: Any) -> int:
    try:
        end.admitted = judge(_digest(store_context), lambda: _path(store_context))
    except PeerDenied as refusal:
        end.refusal = refusal
        _lib.X509_STORE_CTX_set_error(store_context, _ERROR_OF_DENIAL.get(refusal.reason, _REJECTED))
        return 0
    finally:
        _lib.ERR_clear_error()
    _lib.X509_STORE_CTX_set_error(store_context, 0)
    return 1


def _file_crash(bench: Bench) -> Callable[[Any, BaseException, Any], None]:
    """What cffi calls when the callback raised after all; the handshake raises it again where it can be handled."""

    def on_error(_kind: Any, crash: BaseException, _traceback: Any) -> None:
        if bench.current is not None:
            bench.current.crash = crash

    return on_error


def _digest(store_context: Any) -> bytes:
    out = _ffi.new("unsigned char[]", _DIGEST_BYTES)
    size = _ffi.new("unsigned int *", _DIGEST_BYTES)
    leaf = _lib.X509_STORE_CTX_get0_cert(store_context)
    if _lib.X509_digest(leaf, _SHA256, out, size) != 1:
        raise PeerDenied(Denial.UNREADABLE, "the leaf certificate has no digest")
    return bytes(_ffi.buffer(out))


def _path(store_context: Any) -> tuple[bytes, ...]:
    """The path that OpenSSL built from what the peer sent, leaf first, each certificate as DER."""
    chain = _lib.X509_STORE_CTX_get1_chain(store_context)
    if chain == _ffi.NULL:
        return ()
    certificates = [_lib.sk_X509_value(chain, at) for at in range(_lib.sk_X509_num(chain))]
    try:
        return tuple(_der(certificate) for certificate in certificates[: MAX_PATH + 1])
    finally:
        for certificate in certificates:
            _lib.X509_free(certificate)
        _lib.sk_X509_free(chain)


def _der(certificate: Any) -> bytes:
    memory = _lib.BIO_new(_lib.BIO_s_mem())
    try:
        _lib.i2d_X509_bio(memory, certificate)
        parts = []
        piece = _ffi.new("char[]", 4096)
        while (size := _lib.BIO_read(memory, piece, 4096)) > 0:
            parts.append(bytes(_ffi.buffer(piece, size)))
        return b"".join(parts)
    finally:
        _lib.BIO_free(memory)


def _pointer(context: SSL.Context) -> Any:
    return context._context  # the public Connection would copy at every call


class TlsEnd:
    """One end of one connection: records in, plaintext out, and the other way round."""

    __slots__ = (
        "_bench",
        "_context",
        "_fed",
        "_inbox",
        "_inbox_at",
        "_outbox",
        "_outbox_at",
        "_rbio",
        "_result",
        "_ssl",
        "_wbio",
        "admitted",
        "consumed",
        "crash",
        "has_ended",
        "has_spoken",
        "is_server",
        "refusal",
    )

    def __init__(self, context: SSL.Context, bench: Bench, buffers: Buffers, *, is_server: bool, server_name: str = "") -> None:
        self._context = context  # kept alive: OpenSSL's own reference does not keep the callback
        self._bench = bench
        self._inbox, self._inbox_at = buffers.inbox, buffers.inbox_at
        self._outbox, self._outbox_at = buffers.outbox_view, buffers.outbox_at
        self._ssl = _lib.SSL_new(_pointer(context))
        self._rbio = self._wbio = None
        self.renew()
        self.is_server = is_server
        if is_server:
            _lib.SSL_set_accept_state(self._ssl)
        else:
            _lib.SSL_set_connect_state(self._ssl)
            if server_name:
                _lib.SSL_set_tlsext_host_name(self._ssl, server_name.encode())
        self.admitted: Admitted | None = None  # set inside the handshake
        self.refusal: PeerDenied | None = None
        self.crash: BaseException | None = None
        self.has_ended = False  # the peer's close_notify was read
        self.has_spoken = False  # reading a record made OpenSSL want to say something: ask `take`
        self._fed = self._result = 0  # a record that `open_one` has fed without finding data, and what it found
        self.consumed = 0  # bytes of the inbox that the last call used up

    def __del__(self) -> None:
        self.free()

    def free(self) -> None:
        """Give the memory back; nothing else may be called then."""
        if self._ssl is not None:
            _lib.SSL_free(self._ssl)  # and the BIOs with it
            self._ssl = None

    def renew(self) -> None:
        """Two new BIOs for those that a burst has made large; both must be empty."""
        memory = _lib.BIO_s_mem()
        self._rbio, self._wbio = _lib.BIO_new(memory), _lib.BIO_new(memory)
        _lib.SSL_set_bio(self._ssl, self._rbio, self._wbio)

    def version(self) -> str:
        """The negotiated protocol, `TLSv1.3`."""
        text: bytes = _ffi.string(_lib.SSL_get_version(self._ssl))
        return text.decode()

    def is_resumed(self) -> bool:
        """Whether the peer came without showing its certificate; this must never be."""
        return bool(_lib.SSL_session_reused(self._ssl))

    def handshake(self, end: int) -> bool:
        """Take the records in `inbox[:end]` until the handshake is done, and say whether it is.

        Raises TlsError when it failed, PeerDenied when we refused the peer; in both cases `take` has what to send first.
        """
        self.consumed = 0
        if end == 0:
            return self._step()
        while (stop := self._record_end(self.consumed, end)) > self.consumed:
            _BIO_write(self._rbio, self._inbox_at + self.consumed, stop - self.consumed)
            self.consumed = stop
            if self._step():
                return True
        return False

    def _step(self) -> bool:
        self._bench.current = self
        result = _lib.SSL_do_handshake(self._ssl)
        self._bench.current = None
        if result == 1:
            return True
        if _lib.SSL_get_error(self._ssl, result) == _lib.SSL_ERROR_WANT_READ:
            return False
        failure = _failure()
        if self.crash is not None:
            raise self.crash
        if self.refusal is not None:
            raise self.refusal
        raise failure

    def open_one(self, size: int) -> int:
        """The number of plaintext bytes when `inbox[:size]` is exactly one record with data, which most small reads are.

        0 for everything else, which `open_records` then takes up where this has left it.
        """
        inbox = self._inbox
        if (inbox[3] << 8 | inbox[4]) + 5 != size:
            return 0
        _BIO_write(self._rbio, self._inbox_at, size)
        got: int = _SSL_read(self._ssl, self._outbox_at, _RECORD_BYTES)
        if got > 0:
            return got
        self._fed, self._result = size, got
        return 0

    def open_records(self, end: int) -> int:
        """Decrypt the whole records of `inbox[:end]` into the outbox; the number of plaintext bytes.

        `consumed` says how much of the inbox was whole. Raises TlsError for what is no record of this connection.
        """
        inbox = self._inbox
        at, self._fed = self._fed, 0
        if at and self._stop_reading(self._result):
            self.consumed = end
            return 0
        start, count = at, 0
        while at + 5 <= end:
            stop = at + 5 + (inbox[at + 3] << 8 | inbox[at + 4])
            if stop > end:
                break
            at = stop
            count += 1
        if at < end and not self._is_plausible(at, end):
            at = end
            count += 1
        self.consumed = at
        return self._read_records(start, at, count) if count else 0

    def _read_records(self, start: int, end: int, count: int) -> int:
        """The plaintext of `count` records in `inbox[start:end]`, read where they lie, without a copy into a BIO."""
        ssl, outbox_at = self._ssl, self._outbox_at
        lent = _lib.BIO_new_mem_buf(self._inbox_at + start, end - start)
        _lib.BIO_set_mem_eof_return(lent, -1)  # at its end it is empty, not over
        _lib.SSL_set_bio(ssl, lent, self._wbio)  # the old one for reading goes, the one for writing stays
        size = 0
        for _ in range(count):
            got = _SSL_read(ssl, outbox_at + size, _RECORD_BYTES)
            if got > 0:
                size += got
            elif self._stop_reading(got):
                self.consumed = end
                break
        self._rbio = _lib.BIO_new(_lib.BIO_s_mem())
        _lib.SSL_set_bio(ssl, self._rbio, self._wbio)
        return size

    def _stop_reading(self, result: int) -> bool:
        """What a read without data means: a record of another kind, the peer's close_notify, or an error."""
        self.has_spoken = True
        code = _lib.SSL_get_error(self._ssl, result)
        if code == _lib.SSL_ERROR_WANT_READ:
            return False
        if code == _lib.SSL_ERROR_ZERO_RETURN:
            self.has_ended = True
            return True
        raise _failure()

    def _record_end(self, at: int, end: int) -> int:
        """Where the record at `at` ends, `at` when it is not all there, `end` when it is none."""
        if at + 5 <= end:
            inbox = self._inbox
            stop = at + 5 + (inbox[at + 3] << 8 | inbox[at + 4])
            if stop <= end:
                return stop
        return at if at == end or self._is_plausible(at, end) else end

    def _is_plausible(self, at: int, end: int) -> bool:
        """Whether an incomplete record may become one; if not, OpenSSL shall say at once what is wrong with it."""
        head = self._inbox[at : min(at + 5, end)]
        return (
            20 <= head[0] <= 23
            and (len(head) < 2 or head[1] == 3)
            and (len(head) < 5 or (head[3] << 8 | head[4]) + 5 <= _MAX_RECORD)
        )

    def seal(self, size: int) -> int:
        """Encrypt `inbox[:size]` into the outbox; the number of bytes to send. Raises TlsError."""
        if size <= _RECORD_BYTES:
            if _SSL_write(self._ssl, self._inbox_at, size) <= 0:
                raise _failure()
            made: int = _BIO_read(self._wbio, self._outbox_at, _RECORD_BYTES + _SEAL_ROOM)
            return made
        at = out = 0
        while at < size:
            piece = min(size - at, _PIECE_BYTES)
            if _SSL_write(self._ssl, self._inbox_at + at, piece) <= 0:
                raise _failure()
            out += _BIO_read(self._wbio, self._outbox_at + out, len(self._outbox) - out)
            at += piece
        return out

    def take(self) -> bytes:
        """What OpenSSL has to say and has not been asked for: a flight, an alert, a close_notify."""
        self.has_spoken = False
        size = _BIO_read(self._wbio, self._outbox_at, len(self._outbox))
        return bytes(self._outbox[:size]) if size > 0 else b""

    def close_notify(self) -> bytes:
        """The alert that ends our direction; reading may go on."""
        _lib.SSL_shutdown(self._ssl)
        _lib.ERR_clear_error()
        return self.take()


def _failure() -> TlsError:
    """OpenSSL's oldest error, with the queue emptied behind it."""
    code = _lib.ERR_get_error()
    _lib.ERR_clear_error()
    if not code:
        return TlsError("connection ended inside the protocol")
    reason = _lib.ERR_GET_REASON(code)
    text = _lib.ERR_reason_error_string(code)
    words = _ffi.string(text).decode() if text != _ffi.NULL else f"error {reason}"
    return TlsError(words, reason - _ALERT_BASE if _ALERT_BASE < reason < _ALERT_BASE + 256 else None)


_SHA256: Final[Any] = _lib.EVP_get_digestbyname(b"sha256")
