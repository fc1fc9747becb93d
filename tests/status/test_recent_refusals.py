"""Recent refusals are counted exactly while they are kept, and their number is bounded."""

from __future__ import annotations

from tunnel.lazy_dataclass import replace
from tunnel.status.recent_refusals import MAX_REFUSALS, RecentRefusal, RecentRefusals

ONE = RecentRefusal(1.0, "redis", True, "10.0.0.7", "spiffe://a.test/cron", "refused", "no-matching-rule", "not allowed")


def test_equal_refusals_are_one_with_a_count() -> None:
    recent = RecentRefusals()
    for second in range(10_000):
        recent.add(replace(ONE, time=float(second), detail=f"attempt {second}"))
    assert recent.newest_first() == (replace(ONE, time=9999.0, detail="attempt 9999", count=10_000, first_time=0.0),)


def test_the_newest_come_first_and_the_oldest_leave() -> None:
    recent = RecentRefusals()
    recent.add(ONE)
    for number in range(MAX_REFUSALS):
        recent.add(replace(ONE, source=f"10.0.1.{number}", time=2.0))
    kept = recent.newest_first()
    assert len(kept) == MAX_REFUSALS
    assert kept[0].source == f"10.0.1.{MAX_REFUSALS - 1}"
    assert all(one.source != ONE.source for one in kept)
    recent.add(ONE)
    assert recent.newest_first()[0] == replace(ONE, first_time=1.0), "a refusal that has left is counted anew"
