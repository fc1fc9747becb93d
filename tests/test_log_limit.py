"""Equal refusals of one source are written a few times in each window, and counted always."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.socket_pairs import Clock
from tunnel.log import Category
from tunnel.log_limit import EQUAL_LINES, LINES, MAX_ENTRIES, WINDOW, RefusalLog, source_of

HANDSHAKE, DIAL = Category.HANDSHAKE_ERRORS, Category.CONN_ERRORS
PEER = "tcp:192.0.2.7:50000"
COUNT = EQUAL_LINES + 7


class Bench:
    """A limit with a log in memory, and a clock that the test moves."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.quiet: set[Category] = set()
        self.clock = Clock()
        self._due: list[tuple[float, Callable[[], object]]] = []
        self.limit = RefusalLog(self, self.clock, self.call_later)

    def wants(self, category: Category) -> bool:
        return category not in self.quiet

    def write(self, message: str, category: Category = Category.OTHER) -> None:
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
def bench() -> Bench:
    return Bench()


def test_the_first_lines_are_written_and_the_others_counted_when_the_window_ends(bench: Bench) -> None:
    bench.refuse(COUNT)
    assert bench.lines == ["refused expired"] * EQUAL_LINES
    bench.later(WINDOW + 0.01)
    assert bench.lines[EQUAL_LINES:] == ["equal refusals left out: from=192.0.2.7 reason=expired suppressed=7"]
    assert bench.timers == 0
    bench.refuse()
    assert bench.lines[-1] == "refused expired"


def test_a_line_that_comes_before_the_timer_has_the_count(bench: Bench) -> None:
    bench.refuse(COUNT)
    bench.clock.now += WINDOW + 1  # and no timer has run yet
    bench.refuse()
    assert bench.lines[EQUAL_LINES:] == ["refused expired suppressed=7"]
    bench.later(WINDOW + 1)
    assert len(bench.lines) == EQUAL_LINES + 1


def test_different_lines_of_one_source_have_a_limit_too(bench: Bench) -> None:
    bench.refuse_differently(LINES)
    assert len(set(bench.lines)) == LINES
    bench.refuse_differently(2 * LINES)
    bench.refuse(COUNT)
    assert len(bench.lines) == LINES
    bench.limit.flush()
    assert bench.lines[-1].endswith(f" suppressed={2 * LINES + COUNT}")


def test_other_sources_reasons_and_events_are_counted_apart(bench: Bench) -> None:
    bench.refuse(COUNT)
    for other in ({"peer": "tcp:192.0.2.8:1"}, {"reason": "no-rule"}, {"category": DIAL}):
        before = len(bench.lines)
        bench.refuse(**other)  # type: ignore[arg-type]
        assert len(bench.lines) == before + 1


def test_the_port_makes_no_other_source(bench: Bench) -> None:
    for port in range(COUNT):
        peer = f"192.0.2.7:{5000 + port}"
        bench.limit.write(f"tcp:{peer}", "expired", f"refused from {peer}: expired", HANDSHAKE)
    assert len(bench.lines) == EQUAL_LINES


def test_counts_are_exact_whatever_the_table_holds(bench: Bench) -> None:
    sources = 2 * MAX_ENTRIES
    for number in range(sources):
        bench.refuse(COUNT, peer=f"tcp:10.0.{number // 256}.{number % 256}:1")
        assert len(bench.limit._windows) <= MAX_ENTRIES
    bench.limit.flush()
    suppressed = sum(int(line.rpartition("suppressed=")[2]) for line in bench.lines if "suppressed=" in line)
    assert suppressed == 7 * sources
    assert sum(line == "refused expired" for line in bench.lines) == EQUAL_LINES * sources


def test_at_the_end_pending_counts_are_written_once(bench: Bench) -> None:
    bench.refuse(COUNT)
    bench.limit.flush()
    bench.limit.flush()
    bench.later(WINDOW + 1)
    assert bench.lines[EQUAL_LINES:] == ["equal refusals left out: from=192.0.2.7 reason=expired suppressed=7"]


def test_what_quiet_silences_is_not_counted_as_suppressed(bench: Bench) -> None:
    bench.quiet = {HANDSHAKE}
    bench.refuse(COUNT)
    bench.limit.flush()
    assert (bench.lines, bench.timers) == ([], 0)


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
