"""The buffers that all connections of an event loop share, and the boundaries of TLS records in them."""

from __future__ import annotations

from tunnel.tls.openssl import ffi

RECORD_BYTES = 16384  # of plaintext, RFC 8446 5.1
SMALL_HEADS = 1024
_INBOX_BYTES = 256 * 1024
OUTBOX_BYTES = _INBOX_BYTES + 64 * 1024  # with record headers and tags for a full inbox, and output that was pending before
_MAX_RECORD = 5 + RECORD_BYTES + 2048  # RFC 5246 6.2.3 allows more overhead than RFC 8446 5.2


class Buffers:
    """The input and output buffers of an event loop."""

    __slots__ = ("inbox", "inbox_at", "inbox_view", "outbox_at", "outbox_heads", "outbox_view", "piece_at")

    def __init__(self) -> None:
        self.inbox = bytearray(_INBOX_BYTES)
        self.inbox_view = memoryview(self.inbox)
        self.inbox_at = ffi.from_buffer(self.inbox)
        outbox = bytearray(OUTBOX_BYTES)
        self.outbox_view = memoryview(outbox)
        self.outbox_at = ffi.from_buffer(outbox)
        self.piece_at = ffi.new("char **")  # the place of a piece in OpenSSL's memory
        # Views of the first n bytes of the outbox, for small n: a lookup is cheaper than a slice.
        self.outbox_heads = [self.outbox_view[:size] for size in range(SMALL_HEADS)]


def record_end(inbox: bytearray, at: int, end: int) -> int:
    """Return the end of the record at `at` in `inbox[:end]`: `at` if it is incomplete, `end` if it is not a record."""
    if at + 5 <= end:
        stop = at + 5 + (inbox[at + 3] << 8 | inbox[at + 4])
        if stop <= end:
            return stop
    return at if at == end or is_plausible(inbox, at, end) else end


def is_plausible(inbox: bytearray, at: int, end: int) -> bool:
    """Whether the incomplete `inbox[at:end]` can become a valid record; if not, OpenSSL gets it at once to report the error."""
    head = inbox[at : min(at + 5, end)]
    return (
        20 <= head[0] <= 23
        and (len(head) < 2 or head[1] == 3)
        and (len(head) < 5 or (head[3] << 8 | head[4]) + 5 <= _MAX_RECORD)
    )
