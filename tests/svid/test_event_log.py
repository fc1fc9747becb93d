"""Events in each format; a slow reader never blocks the program."""

from __future__ import annotations

import json

import pytest

from tunnel.svid.event_log import Event, EventFormat, EventLog


class Narrow:
    """A sink with room for a few bytes at a time, and for none while it is shut."""

    lost = 0
    problem = ""
    is_failing = False

    def __init__(self) -> None:
        self.text = ""
        self.is_shut = False

    def write(self, data: bytes, start: int) -> int:
        if self.is_shut:
            return start
        self.text += data[start : start + 7].decode()
        return min(len(data), start + 7)


@pytest.fixture
def sink() -> Narrow:
    return Narrow()


def event_log(form: EventFormat, sink: Narrow) -> EventLog:
    return EventLog(form, sink=sink, wall=lambda: 1_700_000_000.0)


def test_for_machines_an_event_is_one_object_in_one_line(sink: Narrow) -> None:
    event_log(EventFormat.JSON, sink).write(Event.WRITE_FAILED, "no\nspace", directory="/tls")
    assert json.loads(sink.text) == {
        "event": "write-failed",
        "time": "2023-11-14T22:13:20Z",
        "message": r"no\nspace",
        "directory": "/tls",
    }
    assert sink.text.count("\n") == 1


def test_for_people_it_is_a_line(sink: Narrow) -> None:
    event_log(EventFormat.PLAIN, sink).write(Event.WRITTEN, "wrote\x1b it", directory="/tls")
    assert sink.text == "tunnel: wrote\\x1b it\n"


def test_a_log_has_the_time(sink: Narrow) -> None:
    event_log(EventFormat.LOG, sink).write(Event.WRITTEN, "wrote it", directory="/tls")
    assert sink.text.startswith("[")
    assert sink.text.endswith(".000000 wrote it\n")


@pytest.mark.parametrize("form", EventFormat)
def test_what_nobody_reads_waits_and_comes_later(sink: Narrow, form: EventFormat) -> None:
    log = event_log(form, sink)
    sink.is_shut = True
    log.write(Event.NOTICE, "first")
    log.write(Event.NOTICE, "second")
    assert sink.text == ""
    sink.is_shut = False
    log.flush()
    assert [word in line for word, line in zip(("first", "second"), sink.text.splitlines(), strict=True)] == [True, True]
