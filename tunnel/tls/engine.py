"""Our end of a TLS connection: OpenSSL in memory, with records read from and written to shared buffers.

Rules for changes in this file:

1. OpenSSL gets whole records only. An incomplete record waits outside of OpenSSL, so that its memory is empty between two
   calls, the number of due reads is known, and a FIN inside a record differs from a FIN between two records.
2. A memory BIO keeps the largest size that it ever had: write little to it, read large input in place, and take output from it
   every few records.
3. Clear OpenSSL's error queue after an error: a stale entry turns the next "want read" into a failure.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunnel.authz.authorizer import Admitted
from tunnel.errors import PeerDenied, TlsError, TlsFault
from tunnel.tls.negotiated import TlsParameters, read_parameters
from tunnel.tls.openssl import ffi, free_certificates, lib, take_failure, take_handshake_failure
from tunnel.tls.peer_auth import CURRENT, PeerAuthContext
from tunnel.tls.records import OUTBOX_BYTES, RECORD_BYTES, Buffers, is_plausible, record_end

# Looked up once: each attribute access of the library is a search by name.
_SSL_read, _SSL_write = lib.SSL_read, lib.SSL_write
_BIO_read, _BIO_write, _BIO_get_mem_data = lib.BIO_read, lib.BIO_write, lib.BIO_get_mem_data

_PIECE_BYTES = 8 * RECORD_BYTES  # encrypted in one call: more would make the BIO larger, less costs more calls
_DATA = 23  # the type of records with application data, and of all records in TLS 1.3
_MANY, _FEW = 64, 8  # records in one call: few after one without data, which costs as much as several small ones with data
_MAX_IDLE = 32  # records in a row without application data: as many KeyUpdates as BoringSSL takes, twice as many as Go
_MAX_ANSWER = 4096  # bytes of answers that one call may cause: one record of TLS 1.2 can hold 4096 HelloRequests
_MAX_HANDSHAKE_RECORDS = 4096  # enough for a handshake in records of one byte


class TlsEnd:
    """Our end of one connection: decrypts records from the inbox and encrypts plaintext into the outbox."""

    __slots__ = (
        "_fed",
        "_idle",
        "_inbox",
        "_inbox_at",
        "_is_server",
        "_outbox",
        "_outbox_at",
        "_peer_auth",
        "_piece_at",
        "_rbio",
        "_result",
        "_share",
        "_ssl",
        "_wbio",
        "admitted",
        "consumed",
        "crash",
        "failure",
        "has_ended",
        "has_more",
        "has_output",
        "refusal",
        "source",
    )

    def __init__(
        self, peer_auth: PeerAuthContext, buffers: Buffers, *, is_server: bool, server_name: str = "", source: str = ""
    ) -> None:
        self._peer_auth = peer_auth
        self.source = source  # the client that connected to us, as `tcp:HOST:PORT`
        self._is_server = is_server
        self._inbox, self._inbox_at = buffers.inbox, buffers.inbox_at
        self._outbox, self._outbox_at = buffers.outbox_view, buffers.outbox_at
        self._piece_at = buffers.piece_at
        self._ssl = lib.SSL_new(peer_auth.context)
        self._rbio = self._wbio = ffi.NULL
        self.renew()

        if is_server:
            lib.SSL_set_accept_state(self._ssl)
        else:
            lib.SSL_set_connect_state(self._ssl)
            if server_name:
                lib.SSL_set_tlsext_host_name(self._ssl, server_name.encode())
        self.admitted: Admitted | None = peer_auth.anonymous  # else set inside the handshake
        self.refusal: PeerDenied | None = None
        self.crash: BaseException | None = None
        self.has_ended = False  # close_notify was received
        self.has_output = False  # OpenSSL may have output after a read: call `take`
        self.failure: TlsError | None = None  # why no further record can be read
        self.has_more = False  # complete records are left, because the last call has used up its budget
        self._idle = 0  # records since the last application data
        self._share = _MANY  # of the next call, in records
        self._fed = self._result = (
            0  # the size of a record that `open_one` has passed to OpenSSL without getting data, and the result
        )
        self.consumed = 0  # bytes of the inbox that the last call used up

    def __del__(self) -> None:
        self.free()

    def free(self) -> None:
        """Free the connection; call nothing else afterwards."""
        if self._ssl is not None:
            lib.SSL_free(self._ssl)  # and the BIOs with it
            self._ssl = None

    def end_handshake(self) -> None:
        """Free what only the handshake needed: larger BIOs, and the certificates of the peer."""
        free_certificates(self._ssl)
        self.renew()

    def renew(self) -> None:
        """Replace both BIOs, which stay as large as the largest burst; what the one for reading holds is dropped."""
        waiting = self._peek_waiting()
        memory = lib.BIO_s_mem()
        self._rbio, self._wbio = lib.BIO_new(memory), lib.BIO_new(memory)
        if waiting:
            lib.BIO_write(self._wbio, waiting, len(waiting))
        lib.SSL_set_bio(self._ssl, self._rbio, self._wbio)

    def _peek_waiting(self) -> bytes:
        """Return pending output of OpenSSL without taking it, such as session tickets."""
        if self._wbio == ffi.NULL:
            return b""
        if lib.BIO_get_mem_data(self._wbio, ffi.NULL) <= 0:
            return b""
        place = ffi.new("char **")
        size = lib.BIO_get_mem_data(self._wbio, place)
        return bytes(ffi.buffer(place[0], size))

    def has_tickets_only(self) -> bool:
        """Whether only session tickets, which no peer waits for (RFC 8446, 4.6.1), are left to send after a handshake."""
        return self._is_server and lib.SSL_version(self._ssl) == lib.TLS1_3_VERSION

    def version(self) -> str:
        """The negotiated protocol, `TLSv1.3`."""
        text: bytes = ffi.string(lib.SSL_get_version(self._ssl))
        return text.decode()

    def parameters(self) -> TlsParameters:
        """Return the negotiated parameters."""
        return read_parameters(self._ssl)

    def server_name(self) -> bytes:
        """The server name that the client sent (SNI), empty if none."""
        name = lib.SSL_get_servername(self._ssl, lib.TLSEXT_NAMETYPE_host_name)
        return b"" if name == ffi.NULL else bytes(ffi.string(name))

    def alpn(self) -> bytes:
        """The negotiated application protocol (ALPN), empty if none."""
        data, size = ffi.new("unsigned char **"), ffi.new("unsigned int *")
        lib.SSL_get0_alpn_selected(self._ssl, data, size)
        return bytes(ffi.buffer(data[0], size[0])) if size[0] else b""

    def is_resumed(self) -> bool:
        """Whether the session was resumed, without a certificate; this must never happen."""
        return bool(lib.SSL_session_reused(self._ssl))

    def handshake(self, end: int) -> bool:
        """Process the records in `inbox[:end]`, and return whether the handshake is complete.

        If `has_more` is set, call it again in a later turn. After the handshake call `take`, then `renew` or `open_records`.
        Raises TlsError if the handshake failed, PeerDenied if we refused the peer; then send what `take` returns first.
        """
        self.consumed = 0
        self.has_more = False
        if end == 0:
            return self._step()
        stop = self._find_whole_records(end)
        if not stop:
            return False
        _BIO_write(self._rbio, self._inbox_at, stop)
        self.consumed = stop
        if self._step():
            self._idle = 0
            self.consumed -= max(
                lib.BIO_get_mem_data(self._rbio, ffi.NULL), 0
            )  # read by nobody: the next call replaces the BIO
            return True
        self.has_more = record_end(self._inbox, stop, end) > stop
        return False

    def _find_whole_records(self, end: int) -> int:
        """Return the end of the complete records in `inbox[:end]` that one call may process."""
        at = 0
        for _ in range(_MANY):
            stop = record_end(self._inbox, at, end)
            if stop == at:
                break
            at = stop
            self._idle += 1
        if self._idle > _MAX_HANDSHAKE_RECORDS:
            raise TlsError(TlsFault.NO_DATA, f"more than {_MAX_HANDSHAKE_RECORDS} records in the handshake")
        return at

    def handshake_apart(self, data: bytes) -> bool:
        """Do `handshake` with `data` outside of the shared buffers, so that it may block on another thread."""
        shared = self._inbox, self._inbox_at
        self._inbox = bytearray(data)
        self._inbox_at = ffi.from_buffer("char[]", self._inbox)
        try:
            return self.handshake(len(data))
        finally:
            self._inbox, self._inbox_at = shared

    def is_slow(self) -> bool:
        """Whether the handshake may block on a policy, so that it must run on a thread."""
        return self._peer_auth.is_slow

    def _step(self) -> bool:
        CURRENT.end = self
        result = lib.SSL_do_handshake(self._ssl)
        CURRENT.end = None
        if result == 1:
            return True
        if lib.SSL_get_error(self._ssl, result) == lib.SSL_ERROR_WANT_READ:
            return False
        failure = take_handshake_failure()
        if self.crash is not None:
            raise self.crash
        if self.refusal is not None:
            raise self.refusal
        raise failure

    def open_one(self, size: int) -> int:
        """Decrypt `inbox[:size]` if it is exactly one record with data, as most small reads are; return the plaintext size.

        Returns 0 otherwise; `open_records` then continues.
        """
        inbox = self._inbox
        if (inbox[3] << 8 | inbox[4]) + 5 != size:
            return 0
        _BIO_write(self._rbio, self._inbox_at, size)
        got: int = _SSL_read(self._ssl, self._outbox_at, RECORD_BYTES)
        if got > 0:
            self._idle = 0
            return got
        self._fed, self._result = size, got
        return 0

    def open_records(self, end: int) -> int:
        """Decrypt the complete records of `inbox[:end]` into the outbox, and return the plaintext size.

        Sets `consumed` to the number of input bytes used, and `has_more` if complete records are left for a later turn. Sets
        `failure` at an invalid record; plaintext from before it is still returned.
        """
        inbox = self._inbox
        at, self._fed = self._fed, 0
        self.has_more = False
        if at:
            if self._is_over(self._result):
                self.consumed = end
                return 0
            self._count_idle(1, 0)
        start, count, share = at, 0, self._share
        while at + 5 <= end and count < share:
            stop = at + 5 + (inbox[at + 3] << 8 | inbox[at + 4])
            if stop > end:
                break
            if inbox[at] != _DATA:
                share = count + 1
            at = stop
            count += 1
        if at < end and count < share and not is_plausible(inbox, at, end):
            at = end
            count += 1
        size = self._read_records(start, at, count) if count else 0
        if self.failure is not None or self.has_ended:
            at = end
        self.consumed = at
        self.has_more = count == share and record_end(inbox, at, end) > at
        return size

    def _read_records(self, start: int, end: int, count: int) -> int:
        """Decrypt `count` records in `inbox[start:end]` in place, without a copy into a BIO."""
        ssl, outbox_at = self._ssl, self._outbox_at
        lent = lib.BIO_new_mem_buf(self._inbox_at + start, end - start)
        lib.BIO_set_mem_eof_return(lent, -1)  # its end means "no data yet", not EOF
        lib.SSL_set_bio(ssl, lent, self._wbio)  # frees the previous read BIO, keeps the write BIO
        size = found = 0
        for _ in range(count):
            got = _SSL_read(ssl, outbox_at + size, RECORD_BYTES)
            if got > 0:
                size += got
                found += 1
            elif self._is_over(got):
                break
        self._rbio = lib.BIO_new(lib.BIO_s_mem())
        lib.SSL_set_bio(ssl, self._rbio, self._wbio)
        self._count_idle(count, found)
        return size

    def _count_idle(self, count: int, found: int) -> None:
        """Count the records without data among `count`, of which `found` had data; OpenSSL skips the others itself."""
        self._idle = 0 if found else self._idle + count
        if found == count:
            self._share = _MANY
            return
        self._share = _FEW
        if self.failure is not None or self.has_ended:
            return
        if self._idle >= _MAX_IDLE:
            self.failure = TlsError(TlsFault.NO_DATA, f"{self._idle} records in a row without application data")
        elif (answer := lib.BIO_get_mem_data(self._wbio, ffi.NULL)) > _MAX_ANSWER:
            self.failure = TlsError(
                TlsFault.NO_DATA, f"messages without application data that require {answer} bytes of answers"
            )

    def _is_over(self, result: int) -> bool:
        """Whether reading has ended after this result, by close_notify or with `failure` set."""
        try:
            return self._stop_reading(result)
        except TlsError as error:
            self.failure = error
            return True

    def _stop_reading(self, result: int) -> bool:
        """Return whether a read without data was close_notify; raises TlsError for an error."""
        self.has_output = True
        code = lib.SSL_get_error(self._ssl, result)
        if code == lib.SSL_ERROR_WANT_READ:
            return False
        if code == lib.SSL_ERROR_ZERO_RETURN or self._has_late_close_notify(code):
            self.has_ended = True
            return True
        raise take_failure()

    def _has_late_close_notify(self, code: int) -> bool:
        """Whether a read that OpenSSL reports as a system error was close_notify.

        This happens in TLS 1.3 for a close_notify after user_canceled, which Java sends (RFC 8446, 6.1). A fatal alert sets the
        same flag, but it also leaves an error in the queue, so the error code of its first read is different.
        """
        is_received = bool(lib.SSL_get_shutdown(self._ssl) & lib.SSL_RECEIVED_SHUTDOWN)
        return is_received and code == lib.SSL_ERROR_SYSCALL and self.failure is None

    def seal(self, size: int) -> int:
        """Encrypt `inbox[:size]` in one call into the outbox, and return the number of bytes to send; raises TlsError."""
        if _SSL_write(self._ssl, self._inbox_at, size) <= 0:
            raise take_failure()
        made: int = _BIO_read(self._wbio, self._outbox_at, OUTBOX_BYTES)
        return made

    def seal_pieces(self, size: int) -> Iterator[memoryview]:
        """Encrypt `inbox[:size]`, and yield it in pieces of some records; raises TlsError.

        A piece is in OpenSSL's memory and valid until the next one: a copy into the outbox costs an eighth of a download.
        """
        place = self._piece_at
        for at in range(0, size, _PIECE_BYTES):
            if _SSL_write(self._ssl, self._inbox_at + at, min(size - at, _PIECE_BYTES)) <= 0:
                raise take_failure()
            made = _BIO_get_mem_data(self._wbio, place)
            # Onto itself: this takes it out and leaves the bytes where they are. C libraries permit such a memcpy.
            _BIO_read(self._wbio, place[0], made)
            yield memoryview(ffi.buffer(place[0], made))

    def take(self) -> bytes:
        """Return the pending output of OpenSSL: a flight, an alert, a close_notify."""
        self.has_output = False
        size = _BIO_read(self._wbio, self._outbox_at, len(self._outbox))
        return bytes(self._outbox[:size]) if size > 0 else b""

    def close_notify(self) -> bytes:
        """Return the close_notify alert, which ends our direction; reading may continue."""
        lib.SSL_shutdown(self._ssl)
        lib.ERR_clear_error()
        return self.take()
