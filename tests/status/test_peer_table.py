"""Traffic by peer has exact counts and bounded memory."""

from __future__ import annotations

from tunnel.status.peer_table import MAX_PEERS, PeerKey, PeerTable, PeerTraffic

WEB = PeerKey("redis", "spiffe://a.test/web")


def test_ended_and_open_connections_of_a_peer_are_added_up() -> None:
    table = PeerTable()
    table.add(WEB, 3, 5, 10.0)
    table.add(WEB, 1, 1, 12.0)
    live = [(WEB, PeerTraffic(2, 2, 100, 200)), (PeerKey("sql", WEB.peer), PeerTraffic(1, 1, 7, 0)), (WEB, PeerTraffic(1, 1))]
    assert table.read(live) == {
        WEB: PeerTraffic(connections=5, opened=3, forwarded=104, returned=206, last_seen=12.0),
        PeerKey("sql", WEB.peer): PeerTraffic(1, 1, 7, 0, 0.0),
    }
    assert table.read(()) == {WEB: PeerTraffic(2, 0, 4, 6, 12.0)}, "reading changes nothing"


def test_the_peer_whose_last_connection_ended_first_is_evicted() -> None:
    table = PeerTable()
    table.add(WEB, 1, 1, 0.0)
    for number in range(MAX_PEERS):
        table.add(PeerKey("redis", f"spiffe://a.test/{number}"), 1, 1, 1.0)
        if number == 5:
            table.add(WEB, 1, 1, 2.0)
    found = table.read(())
    assert len(found) == MAX_PEERS
    assert found[WEB].connections == 2
    assert PeerKey("redis", "spiffe://a.test/0") not in found
