"""The number of series by peer is bounded, and no counter of them decreases."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from tests.support.socket_pairs import Clock
from tunnel.status.busy_peers import OTHERS, BusyPeers, PeerSeries
from tunnel.status.peer_table import MAX_PEERS, NO_TRAFFIC, PeerKey, PeerTable, PeerTraffic

COUNTERS = ("connections", "forwarded", "returned")
LISTENERS = ("a", "b")


def by_key(series: list[PeerSeries]) -> dict[PeerKey, PeerTraffic]:
    found = {one.key: one.traffic for one in series}
    assert len(found) == len(series)
    return found


def names(series: list[PeerSeries]) -> set[str]:
    return {one.key.peer for one in series}


def test_few_peers_have_all_their_series_with_exact_totals() -> None:
    totals = {PeerKey("a", "web"): PeerTraffic(3, 1, 10, 20, 5.0), PeerKey("b", "web"): PeerTraffic(1, 0, 1, 1, 4.0)}
    found = by_key(BusyPeers(2).read(totals, LISTENERS))
    assert found == totals | {PeerKey(name, OTHERS): NO_TRAFFIC for name in LISTENERS}


def test_without_series_by_peer_there_are_none() -> None:
    assert BusyPeers(0).read({PeerKey("a", "web"): PeerTraffic(1)}, LISTENERS) == []


def test_a_peer_that_is_clearly_busier_displaces_the_least_busy_one() -> None:
    clock = Clock()
    peers = BusyPeers(1, clock)
    first, second = PeerKey("a", "first"), PeerKey("a", "second")
    peers.read({first: PeerTraffic(10)}, ["a"])
    assert names(peers.read({first: PeerTraffic(10), second: PeerTraffic(15)}, ["a"])) == {"first", OTHERS}, "not clearly"
    found = by_key(peers.read({first: PeerTraffic(10), second: PeerTraffic(40)}, ["a"]))
    assert found == {second: PeerTraffic(40), PeerKey("a", OTHERS): PeerTraffic(15)}
    clock.now += 3600
    found = by_key(peers.read({first: PeerTraffic(12), second: PeerTraffic(40)}, ["a"]))
    assert found == {first: PeerTraffic(12), PeerKey("a", OTHERS): PeerTraffic(15)}, "activity of an hour ago counts little"


def test_a_peer_that_is_named_as_the_others_is_one_of_them() -> None:
    found = by_key(BusyPeers(5).read({PeerKey("a", OTHERS): PeerTraffic(2, 1)}, ["a"]))
    assert found == {PeerKey("a", OTHERS): PeerTraffic(2, 1)}


def test_a_removed_listener_has_no_series() -> None:
    peers = BusyPeers(1)
    peers.read({PeerKey("a", "x"): PeerTraffic(1), PeerKey("b", "y"): PeerTraffic(1)}, LISTENERS)
    assert {one.key.listener for one in peers.read({PeerKey("b", "y"): PeerTraffic(1)}, ["b"])} == {"b"}


def test_a_thousand_peers_have_a_bounded_number_of_series_and_of_entries() -> None:
    table, peers = PeerTable(), BusyPeers(20)
    for scrape in range(4):
        for number in range(1500):
            table.add(PeerKey("a", f"spiffe://a.test/{scrape}/{number}"), number, 1, float(scrape))
        series = peers.read(table.read(()), LISTENERS)
        assert len(series) == 20 + len(LISTENERS)
        entries = [len(one) for one in vars(peers).values() if isinstance(one, dict)]
        assert max(entries) <= MAX_PEERS
    assert {one.key.peer.split("/")[-1] for one in series} >= {"1499", "1498"}, "the busiest"


ACTIONS = st.lists(
    st.lists(
        st.tuples(st.sampled_from(LISTENERS), st.sampled_from("stuvwxyz"), st.integers(0, 3), st.integers(0, 10**7)),
        max_size=8,
    ),
    max_size=12,
)


@given(ACTIONS, st.integers(1, 4), st.integers(0, 600))
def test_series_are_bounded_never_decrease_and_miss_nothing(
    scrapes: list[list[tuple[str, str, int, int]]], limit: int, pause: int
) -> None:
    clock = Clock()
    peers, totals, before = BusyPeers(limit, clock), dict[PeerKey, PeerTraffic](), dict[PeerKey, PeerTraffic]()
    for actions in scrapes:
        previous = dict(totals)
        for listener, name, connections, size in actions:
            key, added = PeerKey(listener, name), PeerTraffic(connections, 0, size, size // 2)
            totals[key] = totals.get(key, NO_TRAFFIC).plus(added)
        clock.now += pause
        found = by_key(peers.read(dict(totals), LISTENERS))
        own = {key: one for key, one in found.items() if key.peer != OTHERS}
        assert len(own) == min(limit, len(totals)), "no series is left unused"
        assert own == {key: totals[key] for key in own}, "a series has the exact total of its peer"
        for counter in COUNTERS:
            read = counter_of(counter)
            assert all(read(found[key]) >= read(one) for key, one in before.items() if key in found)
            for listener in LISTENERS:
                rest = [key for key in totals if key.listener == listener and key not in own]
                grown = sum(read(totals[key]) - read(previous.get(key, NO_TRAFFIC)) for key in rest)
                others = PeerKey(listener, OTHERS)
                assert read(found[others]) - read(before.get(others, NO_TRAFFIC)) == grown, "the others get what is not shown"
        before = found


def counter_of(name: str) -> Callable[[PeerTraffic], int]:
    return lambda traffic: int(getattr(traffic, name))


@given(st.lists(st.tuples(st.sampled_from("stu"), st.integers(0, 50)), max_size=30), st.integers(1, 2))
def test_a_peer_that_the_table_counts_anew_does_not_make_its_series_decrease(
    readings: list[tuple[str, int]], limit: int
) -> None:
    """The totals may fall, as after an eviction; a series is continued as long as it exists."""
    clock = Clock()
    peers, totals = BusyPeers(limit, clock), dict[PeerKey, PeerTraffic]()
    before: dict[PeerKey, PeerTraffic] = {}
    for name, count in readings:
        totals[PeerKey("a", name)] = PeerTraffic(count, 0, count, count)
        found = by_key(peers.read(dict(totals), ["a"]))
        assert all(found[key].connections >= one.connections for key, one in before.items() if key in found)
        assert found[PeerKey("a", OTHERS)].opened == 0
        before = found


def test_the_gauge_of_the_others_counts_open_connections_only_once() -> None:
    peers = BusyPeers(1)
    totals = {PeerKey("a", "x"): PeerTraffic(9, 1), PeerKey("a", "y"): PeerTraffic(2, 2), PeerKey("a", "z"): PeerTraffic(1, 1)}
    for _ in range(2):
        assert by_key(peers.read(totals, ["a"]))[PeerKey("a", OTHERS)] == PeerTraffic(3, 3)
