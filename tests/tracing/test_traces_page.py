"""The page about traces names every span and attribute, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.connection_records import dial_failed, outbound, refused, relayed
from tunnel.listener.connection_record import ConnectionOutcome
from tunnel.tracing.connection_spans import describe_spans
from tunnel.tracing.trace_export import MAX_BATCH, MAX_QUEUE

PAGE = (Path(__file__).parents[2] / "docs/traces.md").read_text()
SPANS = [
    span
    for record in (relayed(), outbound(via_proxy="http://p:1"), refused(), dial_failed())
    for span in describe_spans(record)
]


def heads(heading: str) -> set[str]:
    """The names in the first cells of the table under a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_page_has_every_span() -> None:
    assert heads("Spans") == {span.name for span in SPANS}


def test_the_page_has_every_attribute() -> None:
    assert heads("Attributes") == {name for span in SPANS for name in span.attributes}


def test_the_page_has_every_outcome() -> None:
    (row,) = re.findall(r"^\| `tunnel.outcome` \| (.+) \|$", PAGE, re.MULTILINE)
    assert re.findall(r"`([^`]+)`", row) == [outcome.value for outcome in ConnectionOutcome]


def test_the_page_has_the_limits() -> None:
    assert f"at most {MAX_BATCH} traces" in PAGE
    assert f"{MAX_QUEUE:,} connections" in PAGE
