"""The current answer to one call of one socket, and the open streams that get each new answer.

A stream gets the current answer first, then every new one in order. Publishing the current answer again sends nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue

from tunnel.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """A gRPC status instead of a message; it ends a stream."""

    code: str  # name of the status, for example PERMISSION_DENIED
    text: str


Answer = bytes | Refusal

NO_IDENTITY = Refusal("PERMISSION_DENIED", "no identity issued")  # the text of a SPIRE agent


class AnswerStream:
    """The answers for one client until its stream ends."""

    def __init__(self, first: Answer) -> None:
        self._waiting: SimpleQueue[Answer | None] = SimpleQueue()
        self._waiting.put(first)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self._waiting.get, None)

    def send(self, answer: Answer) -> None:
        """Queue one more answer."""
        self._waiting.put(answer)

    def end(self) -> None:
        """End the stream after the queued answers."""
        self._waiting.put(None)


class AnswerPublisher:
    """The current answer, and the open streams."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answer: Answer = NO_IDENTITY
        self._streams: set[AnswerStream] = set()

    @property
    def stream_count(self) -> int:
        """The number of open streams."""
        return len(self._streams)

    def open_stream(self) -> AnswerStream:
        """Open a stream that starts with the current answer."""
        with self._lock:
            stream = AnswerStream(self._answer)
            self._streams.add(stream)
        return stream

    def close_stream(self, stream: AnswerStream) -> None:
        """Remove a stream and release the thread that waits in it."""
        with self._lock:
            self._streams.discard(stream)
        stream.end()

    def publish(self, answer: Answer) -> None:
        """Make `answer` the current one and send it to every open stream, unless it is the current one already."""
        with self._lock:
            if answer == self._answer:
                return
            self._answer = answer
            for stream in self._streams:
                stream.send(answer)

    def end_streams(self) -> None:
        """End every open stream with OK; new ones are served."""
        with self._lock:
            for stream in self._streams:
                stream.end()
