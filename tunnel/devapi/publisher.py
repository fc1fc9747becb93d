"""One call of one socket: its current answer and the streams that wait for the next.

Knows threads and the order of answers; must not know gRPC or what an answer says. A stream gets the answer that holds
when it opens and then every other one in order; publishing what holds already sends nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status instead of a message; it ends a stream."""

    code: str  # the name of a gRPC status, such as PERMISSION_DENIED
    text: str


Answer = bytes | Refusal

NO_IDENTITY = Refusal("PERMISSION_DENIED", "no identity issued")  # an agent's words


class AnswerStream:
    """The answers one caller gets until its stream ends."""

    def __init__(self, first: Answer) -> None:
        self._waiting: SimpleQueue[Answer | None] = SimpleQueue()
        self._waiting.put(first)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self._waiting.get, None)

    def send(self, answer: Answer) -> None:
        """Queue one more answer."""
        self._waiting.put(answer)

    def end(self) -> None:
        """End after what is queued."""
        self._waiting.put(None)


class AnswerPublisher:
    """The current answer, and the open streams."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answer: Answer = NO_IDENTITY
        self._streams: set[AnswerStream] = set()

    @property
    def stream_count(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def open_stream(self) -> AnswerStream:
        """A stream that starts with the current answer."""
        with self._lock:
            stream = AnswerStream(self._answer)
            self._streams.add(stream)
        return stream

    def close_stream(self, stream: AnswerStream) -> None:
        """Forget a stream and free the thread that waits in it."""
        with self._lock:
            self._streams.discard(stream)
        stream.end()

    def publish(self, answer: Answer) -> None:
        """Make `answer` the current one and send it to every open stream, unless it is so already."""
        with self._lock:
            if answer == self._answer:
                return
            self._answer = answer
            for stream in self._streams:
                stream.send(answer)

    def end_streams(self) -> None:
        """End every open stream properly; new ones are served."""
        with self._lock:
            for stream in self._streams:
                stream.end()
