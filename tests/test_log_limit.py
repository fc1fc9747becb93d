"""Similar refusals of one source: a few lines per window, and a count of all others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.socket_pairs import Clock
from tunnel.log import Category
from tunnel.log_limit import EQUAL_LINES, LINES, MAX_ENTRIES, WINDOW, RefusalLog, source_of

HANDSHAKE, DIAL = Category.HANDSHAKE_ERRORS, Category.CONN_ERRORS
PEER = "tcp:192.0.2.7:50000"
COUNT = EQUAL_LINES + 7


class RecordedLimit:
    """A limit with a log in memory and a clock that the test advances."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.quiet: set[Category] = set()
        self.clock = Clock()
        self._due: list[tuple[float, Callable[[], object]]] = []
        self.limit = RefusalLog(self, self.clock, self.call_later)

    def is_enabled(self, category: Category) -> bool:
        return category not in self.quiet

    def write(self, message: str, category: Category = Category.OTHER, *, at: float | None = None) -> None:
        self.lines.append(message)

    def call_later(self, delay: float, action: Callable[[], object]) -> None:
        self._due.append((self.clock.now + delay, action))

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        due = [entry for entry in self._due if entry[0] <= self.clock.now]
        self._due = [entry for entry in self._due if entry not in due]
        for _, action in due:
            action()

    def refuse(self, count: int = 1, *, peer: str = PEER, reason: str = "expired", category: Category = HANDSHAKE) -> None:
        for _ in range(count):
            self.limit.write(peer, reason, f"refused {reason}", category)

    def refuse_differently(self, count: int) -> None:
        for number in range(count):
            peer = f"tcp:192.0.2.7:{50000 + number}"
            self.limit.write(peer, "expired", f"refused from {peer.removeprefix('tcp:')}: serial {number}", HANDSHAKE)

    @property
    def timers(self) -> int:
        return len(self._due)


@pytest.fixture
def limited() -> RecordedLimit:
    return RecordedLimit()


def test_the_first_lines_are_written_and_the_others_counted_when_the_window_ends(limited: RecordedLimit) -> None:
    limited.refuse(COUNT)
    assert limited.lines == ["refused expired"] * EQUAL_LINES
    limited.later(WINDOW + 0.01)
    assert limited.lines[EQUAL_LINES:] == ["similar refusals suppressed: from=192.0.2.7 reason=expired suppressed=7"]
    assert limited.timers == 0
    limited.refuse()
    assert limited.lines[-1] == "refused expired"


def test_a_line_before_the_timer_has_the_count(limited: RecordedLimit) -> None:
    limited.refuse(COUNT)
    limited.clock.now += WINDOW + 1  # and no timer has run yet
    limited.refuse()
    assert limited.lines[EQUAL_LINES:] == ["refused expired suppressed=7"]
    limited.later(WINDOW + 1)
    assert len(limited.lines) == EQUAL_LINES + 1


def test_different_lines_of_one_source_have_a_limit_too(limited: RecordedLimit) -> None:
    limited.refuse_differently(LINES)
    assert len(set(limited.lines)) == LINES
    limited.refuse_differently(2 * LINES)
    limited.refuse(COUNT)
    assert len(limited.lines) == LINES
    limited.limit.flush()
    assert limited.lines[-1].endswith(f" suppressed={2 * LINES + COUNT}")


def test_other_sources_reasons_and_events_are_counted_apart(limited: RecordedLimit) -> None:
    limited.refuse(COUNT)
    for other in ({"peer": "tcp:192.0.2.8:1"}, {"reason": "no-rule"}, {"category": DIAL}):
        before = len(limited.lines)
        limited.refuse(**other)  # type: ignore[arg-type]
        assert len(limited.lines) == before + 1


def test_the_port_is_not_part_of_the_source(limited: RecordedLimit) -> None:
    for port in range(COUNT):
        peer = f"192.0.2.7:{5000 + port}"
        limited.limit.write(f"tcp:{peer}", "expired", f"refused from {peer}: expired", HANDSHAKE)
    assert len(limited.lines) == EQUAL_LINES


def test_counts_are_exact_with_a_full_table(limited: RecordedLimit) -> None:
    sources = 2 * MAX_ENTRIES
    for number in range(sources):
        limited.refuse(COUNT, peer=f"tcp:10.0.{number // 256}.{number % 256}:1")
        assert len(limited.limit._limit._windows) <= MAX_ENTRIES
    limited.limit.flush()
    suppressed = sum(int(line.rpartition("suppressed=")[2]) for line in limited.lines if "suppressed=" in line)
    assert suppressed == 7 * sources
    assert sum(line == "refused expired" for line in limited.lines) == EQUAL_LINES * sources


def test_at_the_end_pending_counts_are_written_once(limited: RecordedLimit) -> None:
    limited.refuse(COUNT)
    limited.limit.flush()
    limited.limit.flush()
    limited.later(WINDOW + 1)
    assert limited.lines[EQUAL_LINES:] == ["similar refusals suppressed: from=192.0.2.7 reason=expired suppressed=7"]


def test_lines_of_a_quiet_category_are_not_counted_as_suppressed(limited: RecordedLimit) -> None:
    limited.quiet = {HANDSHAKE}
    limited.refuse(COUNT)
    limited.limit.flush()
    assert (limited.lines, limited.timers) == ([], 0)


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("tcp:192.0.2.7:443", "192.0.2.7"),
        ("192.0.2.7:443", "192.0.2.7"),
        ("tcp:[2001:db8:0:1:2:3:4:5]:443", "2001:db8:0:1::/64"),
        ("tcp:[fe80::7%eth0]:443", "fe80::/64"),
        ("tcp:[::1]:443", "::/64"),
        ("unix:@", "unix:@"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
    ],
)
def test_a_source_is_an_address_a_prefix_or_a_socket(peer: str, source: str) -> None:
    assert source_of(peer) == source
