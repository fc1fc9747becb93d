"""The history has rates per interval and a fixed number of points."""

from __future__ import annotations

from tunnel.status.history import MAX_POINTS, History, HistoryPoint, Totals, point_between

BEFORE = Totals(opened=5, handshakes=100, refused=10, failed=1, forwarded=1000, returned=2000)


def point(number: int) -> HistoryPoint:
    return HistoryPoint(float(number), number, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_point_has_rates_per_second_and_the_connections_of_its_end() -> None:
    after = Totals(opened=3, handshakes=150, refused=11, failed=1, forwarded=6000, returned=2000)
    assert point_between(BEFORE, after, seconds=5.0, now=1234.56789, lag=0.00123456) == HistoryPoint(
        1234.568, 3, 10.0, 0.2, 0.0, 1000.0, 0.0, 0.001235
    )


def test_a_total_that_decreases_is_no_negative_rate() -> None:
    after = BEFORE._replace(handshakes=2, forwarded=0)
    found = point_between(BEFORE, after, seconds=5.0, now=0.0, lag=0.0)
    assert (found.handshakes, found.forwarded) == (0.0, 0.0)


def test_the_number_of_points_is_bounded() -> None:
    history = History()
    for number in range(MAX_POINTS + 10):
        history.add(point(number))
    assert history.count == MAX_POINTS + 10
    points = history.document()["points"]
    assert (len(points), points[0].opened, points[-1].opened) == (MAX_POINTS, 10, MAX_POINTS + 9)


def test_only_points_after_a_number_are_new() -> None:
    history = History()
    assert history.after(0) == ()
    for number in range(MAX_POINTS + 2):
        history.add(point(number))
    assert [one.opened for one in history.after(MAX_POINTS)] == [MAX_POINTS, MAX_POINTS + 1]
    assert history.after(history.count) == ()
    assert len(history.after(0)) == MAX_POINTS, "the first ones are gone"


def test_the_document_says_what_the_numbers_are() -> None:
    document = History().document()
    assert (document["interval"], document["length"], document["points"]) == (5.0, 180, [])
    assert document["fields"] == ("time", "opened", "handshakes", "refused", "failed", "forwarded", "returned", "lag")
