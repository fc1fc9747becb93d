"""Each peer has its own limits, and an entry only for as long as one is needed."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tunnel.authz.peer import Peer
from tunnel.errors import LimitExceeded, LimitFault
from tunnel.listener import peer_limits
from tunnel.listener.peer_limits import PeerLimits, key_of
from tunnel.spiffe.ids import parse_spiffe_id

START = 1e6
SOURCE = "tcp:10.0.0.7:40000"


def peer(number: int = 0) -> Peer:
    return Peer("O=all alike", parse_spiffe_id(f"spiffe://a.test/{number}"), public_key=b"key")


def refusal(limits: PeerLimits, who: Peer | None, now: float = START, source: str = SOURCE) -> LimitFault | None:
    try:
        limits.admit(who, source, now)
    except LimitExceeded as refused:
        return refused.reason
    return None


def test_a_peer_has_at_most_so_many_connections_and_others_have_their_own() -> None:
    limits = PeerLimits(2, 0)
    first = limits.admit(peer(), SOURCE, START)
    assert refusal(limits, peer()) is None
    assert refusal(limits, peer()) is LimitFault.PEER_CONNS
    assert refusal(limits, peer(1)) is None
    limits.release(first)
    assert refusal(limits, peer()) is None
    assert refusal(limits, peer()) is LimitFault.PEER_CONNS


def test_a_peer_connects_at_most_so_often_and_others_have_their_own_rate() -> None:
    limits = PeerLimits(0, 2)
    assert [refusal(limits, peer()) for _ in range(3)] == [None, None, LimitFault.PEER_RATE]
    assert refusal(limits, peer(1)) is None
    assert refusal(limits, peer(), START + 0.4) is LimitFault.PEER_RATE
    assert refusal(limits, peer(), START + 0.5) is None


def test_a_refusal_costs_nothing_of_either_limit() -> None:
    limits = PeerLimits(1, 1)
    key = limits.admit(peer(), SOURCE, START)
    for tick in range(10):
        assert refusal(limits, peer(), START + tick) is LimitFault.PEER_CONNS
    limits.release(key)
    assert refusal(limits, peer(), START + 9) is None


def test_the_reason_is_a_word_and_the_message_has_the_limit() -> None:
    limits = PeerLimits(1, 0)
    limits.admit(peer(), SOURCE, START)
    with pytest.raises(LimitExceeded, match="peer has reached the limit of this listener: 1 open connections"):
        limits.admit(peer(), SOURCE, START)


def test_a_peer_without_connections_and_with_its_whole_rate_has_no_entry() -> None:
    limits = PeerLimits(5, 10)
    for number in range(1000):
        limits.release(limits.admit(peer(number), SOURCE, START))
    for tick in range(1, 1001):
        limits.release(limits.admit(peer(-1), SOURCE, START + tick))
    assert len(limits) == 1


def test_without_a_rate_only_open_connections_have_an_entry() -> None:
    limits = PeerLimits(5, 0)
    keys = [limits.admit(peer(number % 7), SOURCE, START) for number in range(21)]
    assert len(limits) == 7
    for key in keys:
        limits.release(key)
    assert len(limits) == 0


def test_the_number_of_entries_is_bounded_and_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_limits, "MAX_ENTRIES", 50)
    limits = PeerLimits(0, 0.001)
    for number in range(500):
        limits.release(limits.admit(peer(number), SOURCE, START))
    assert len(limits) == 50
    assert refusal(limits, peer(499)) is LimitFault.PEER_RATE
    assert refusal(limits, peer(0)) is None


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_connections_keeps_the_count(seed: int) -> None:
    dice, limits, open_now = random.Random(seed), PeerLimits(3, 0), Counter[int]()
    held: list[tuple[int, bytes]] = []
    for _ in range(2000):
        if held and dice.random() < 0.5:
            number, key = held.pop(dice.randrange(len(held)))
            limits.release(key)
            open_now[number] -= 1
            continue
        number = dice.randrange(10)
        try:
            held.append((number, limits.admit(peer(number), SOURCE, START)))
            open_now[number] += 1
        except LimitExceeded:
            assert open_now[number] == 3
    assert max(open_now.values()) <= 3


# -- what identifies a peer


def test_the_spiffe_id_identifies_a_peer_whatever_its_certificate() -> None:
    renewed = Peer("O=another subject", peer().spiffe_id, public_key=b"another key")
    assert key_of(renewed, "tcp:10.9.9.9:1") == key_of(peer(), SOURCE)
    assert key_of(peer(1), SOURCE) != key_of(peer(), SOURCE)


def test_without_a_spiffe_id_the_subject_does_and_else_the_key() -> None:
    assert key_of(Peer("CN=a", public_key=b"1"), SOURCE) == key_of(Peer("CN=a", public_key=b"2"), SOURCE)
    assert key_of(Peer("CN=a"), SOURCE) != key_of(Peer("CN=b"), SOURCE)
    assert key_of(Peer("", public_key=b"1"), SOURCE) != key_of(Peer("", public_key=b"2"), SOURCE)


def test_a_client_without_certificate_is_identified_by_its_source() -> None:
    assert key_of(None, "tcp:10.0.0.7:1") == key_of(None, "tcp:10.0.0.7:2")
    assert key_of(None, "tcp:10.0.0.7:1") != key_of(None, "tcp:10.0.0.8:1")


def test_no_kind_of_name_is_taken_for_another() -> None:
    name = "spiffe://a.test/0"
    keys = {key_of(peer(), SOURCE), key_of(Peer(name), SOURCE), key_of(Peer("", public_key=name.encode()), SOURCE)}
    assert len(keys | {key_of(None, f"unix:{name}")}) == 4
