"""A destination of log lines in memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MemorySink:
    """Keeps all that is written."""

    data: bytes = b""
    lost: int = 0
    problem: str = ""
    is_failing: bool = False

    def write(self, data: bytes, start: int) -> int:
        self.data += data[start:]
        return len(data)
