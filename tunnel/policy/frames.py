"""Messages between the proxy and its evaluator: a length of four bytes, then JSON.

Knows how a message is cut out of a stream; must not know what it says.
"""

from __future__ import annotations

import json
import struct
from typing import Any

_LENGTH = struct.Struct("!I")


def encode_frame(message: Any) -> bytes:
    """One message as it goes over the stream."""
    body = json.dumps(message).encode("ascii")
    return _LENGTH.pack(len(body)) + body


class FrameParser:
    """Takes pieces of a stream and gives whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Any | None:
        """The message that `data` completes; None means that more bytes are wanted."""
        self._buffer += data
        end = _LENGTH.size
        if len(self._buffer) >= end:
            end += _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) >= end:
                body = bytes(self._buffer[_LENGTH.size : end])
                del self._buffer[:end]
                return json.loads(body)
        return None
