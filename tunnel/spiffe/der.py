"""Cutting a run of DER values into single ones.

Knows the outer tag and length of DER (X.690, 8.1); must not know what is inside. The Workload API hands out certificates
back to back, and no loader at hand takes more than one.
"""

from __future__ import annotations

from tunnel.errors import WireError, WireFault

_SEQUENCE = 0x30
_MAX_LENGTH_BYTES = 4  # of a length in its long form: 4 GiB is more than any message may have


def split_sequences(blob: bytes) -> tuple[bytes, ...]:
    """Each SEQUENCE of `blob` in order; raises WireError unless the blob is nothing but whole SEQUENCEs."""
    found = []
    start = 0
    while start < len(blob):
        end = _end_of_sequence(blob, start)
        found.append(blob[start:end])
        start = end
    return tuple(found)


def _end_of_sequence(blob: bytes, start: int) -> int:
    header = blob[start : start + 2]
    if header[0] != _SEQUENCE:
        raise WireError(WireFault.MALFORMED, f"byte {start} is 0x{header[0]:02x}, not the start of a DER sequence")
    if len(header) < 2:
        raise WireError(WireFault.TRUNCATED, "DER ends inside a header")
    body = start + 2
    length = header[1]
    if length >= 0x80:
        size = length & 0x7F
        if not 1 <= size <= _MAX_LENGTH_BYTES:
            raise WireError(WireFault.MALFORMED, f"byte {start + 1} is no length of DER")
        digits = blob[body : body + size]
        if len(digits) < size:
            raise WireError(WireFault.TRUNCATED, "DER ends inside a length")
        length = int.from_bytes(digits, "big")
        body += size
    if body + length > len(blob):
        raise WireError(WireFault.TRUNCATED, f"DER value at byte {start} is cut short")
    return body + length
