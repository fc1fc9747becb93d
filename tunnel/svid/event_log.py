"""What happens, for people or for machines.

Knows the forms of an event, a line on standard error or a JSON object on standard output; must not know what happens. None of
them ever waits for a reader. The words of events and their keys are in docs/svid.md, and stay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from enum import Enum

from tunnel.log import STDERR, STDOUT, DescriptorSink, Log, Sink, one_line
from tunnel.time_format import time_of

_NAME = "tunnel"


class Event(Enum):
    """What can happen."""

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


class Form(Enum):
    """How events look."""

    LOG = "log"  # lines with a time, for what runs on and on
    PLAIN = "plain"  # lines without, for what is soon over
    JSON = "json"


class EventLog:
    """Where events are told."""

    def __init__(self, form: Form, *, sink: Sink | None = None, wall: Callable[[], float] = time.time) -> None:
        self._is_json = form is Form.JSON
        self._wall = wall
        self._log = Log(
            clock=wall,
            sink=sink or DescriptorSink(STDOUT if self._is_json else STDERR),
            name={Form.LOG: None, Form.PLAIN: _NAME, Form.JSON: ""}[form],
        )

    def tell(self, event: Event, text: str, **facts: object) -> None:
        """One event: `text` says all of it, `facts` are the parts that a machine may want."""
        if self._is_json:
            text = json.dumps({"event": event.value, "time": time_of(self._wall()), "message": one_line(text), **facts})
        self._log.write(text)

    def flush(self) -> None:
        """Write what a reader had no room for."""
        self._log.flush()
