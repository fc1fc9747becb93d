"""The event log of `tunnel svid`: each event as a line on standard error, or as a JSON object on standard output.

Events and their keys are documented in docs/svid.md. Writing never waits for a reader.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from enum import Enum

from tunnel.log import STDERR, STDOUT, Format, Log, NamedFormat, TextFormat, one_line
from tunnel.log_output import DescriptorSink, Sink
from tunnel.time_format import time_of

_NAME = "tunnel"


class Event(Enum):
    """The kind of an event."""

    UPDATE = "update"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    DENIED = "denied"
    WRITTEN = "written"
    WRITE_FAILED = "write-failed"
    FILES_CHANGED = "files-changed"
    EXPIRED = "expired"
    RELOADED = "reloaded"
    RELOAD_FAILED = "reload-failed"
    STARTED = "started"
    ENDED = "ended"
    NOTICE = "notice"


class EventFormat(Enum):
    """How events are written."""

    LOG = "log"  # lines with a time, for a long-running command
    PLAIN = "plain"  # lines without a time
    JSON = "json"


class EventLog:
    """Writes events in one format."""

    def __init__(self, form: EventFormat, *, sink: Sink | None = None, wall: Callable[[], float] = time.time) -> None:
        self._is_json = form is EventFormat.JSON
        self._wall = wall
        self._log = Log(
            clock=wall,
            sink=sink or DescriptorSink(STDOUT if self._is_json else STDERR),
            format_line=_line_format(form),
        )

    def write(self, event: Event, text: str, **facts: object) -> None:
        """Write one event: `text` is the whole message, `facts` are further keys of the JSON object."""
        if self._is_json:
            text = json.dumps({"event": event.value, "time": time_of(self._wall()), "message": one_line(text), **facts})
        self._log.write(text)

    def flush(self) -> None:
        """Write the lines that were kept back because the reader was slow."""
        self._log.flush()


def _line_format(form: EventFormat) -> Format:
    if form is EventFormat.LOG:
        return TextFormat()
    return NamedFormat(_NAME if form is EventFormat.PLAIN else "")
