"""An event log that records its events."""

from __future__ import annotations

from tunnel.svid.event_log import Event, EventFormat, EventLog


class RecordedEvents(EventLog):
    """The events so far, and the facts of the newest one."""

    def __init__(self) -> None:
        super().__init__(EventFormat.PLAIN)
        self.events: list[tuple[Event, str]] = []
        self.facts: dict[str, object] = {}

    def write(self, event: Event, text: str, **facts: object) -> None:
        self.events.append((event, text))
        self.facts = facts
