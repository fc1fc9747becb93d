"""A reader of numbers and byte strings from the front of a message."""

from __future__ import annotations

from tunnel.errors import WireError, WireFault


class ByteReader:
    """Reads one field after the other, numbers in network byte order; raises WireError at the end of the data."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self._what = what  # the message, for the error
        self.at = 0

    @property
    def has_more(self) -> bool:
        """Whether any byte is left."""
        return self.at < len(self.data)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        piece = self.data[self.at : self.at + size]
        if len(piece) < size:
            raise WireError(WireFault.TRUNCATED, f"{self._what} ends inside a field")
        self.at += size
        return piece

    def number(self, size: int) -> int:
        """Return an unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Return a byte string with a length of `size` bytes in front of it (RFC 8446, 3.4)."""
        return self.take(self.number(size))
