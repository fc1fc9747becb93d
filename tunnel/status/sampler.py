"""A sampling profile: where the threads are, a hundred times a second.

Knows frames and their folded notation, which flame graph tools read; must not know HTTP. It samples by the clock, so what
waits is seen as well as what computes; the thread that samples is left out.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from types import FrameType

_INTERVAL = 0.01
_MAX_DEPTH = 200


class Sampler:
    """One profile at a time: counts stacks until it is stopped, in the thread that calls `run`."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._counts: Counter[str] = Counter()

    def run(self, seconds: float) -> bytes:
        """Sample for so many seconds; each line is a stack from the outermost call, and how often it was seen."""
        own = threading.get_ident()
        for _ in range(int(seconds / _INTERVAL)):
            if self._stopped.wait(_INTERVAL):
                break
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                if ident != own:
                    self._counts[fold(names.get(ident) or "foreign thread", frame)] += 1
        lines = (f"{stack} {count}\n" for stack, count in sorted(self._counts.items()))
        return "".join(lines).encode("ascii", "backslashreplace")

    def stop(self) -> None:
        """End `run` soon."""
        self._stopped.set()


def fold(name: str, frame: FrameType) -> str:
    """`thread;outermost;...;innermost`, each call as `module:function`."""
    calls: list[str] = []
    walked: FrameType | None = frame
    while walked is not None and len(calls) < _MAX_DEPTH:
        calls.append(f"{walked.f_globals.get('__name__', '?')}:{walked.f_code.co_qualname}")
        walked = walked.f_back
    return ";".join(part.replace(";", ",") for part in (name, *reversed(calls)))
