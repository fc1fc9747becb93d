"""Accepted connections: which are served, wait or are closed, and what is logged and counted."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from tests.support.configs import listener_config
from tests.support.socket_pairs import is_over, received
from tests.support.tls_ends import TLS12, TLS13, Side, admission, context, identity, lasting_authority
from tests.support.tunnel_harness import (
    ANYONE,
    CALLER,
    HOME,
    KNOWN,
    NAMED,
    PEER,
    PEER_CONTEXTS,
    ROOT,
    WALL,
    Harnesses,
    Peer,
    TunnelHarness,
    carried,
    dialled,
    generation,
    hang_up,
    records_of,
    with_listener,
)
from tunnel.authz.rules import IdRule, PolicyRule, Rule
from tunnel.errors import PeerDenied, TargetError, TargetFault, TlsError
from tunnel.lazy_dataclass import replace
from tunnel.listener.connection_record import ConnectionOutcome
from tunnel.log import MAX_FOREIGN_TEXT, Category
from tunnel.net.address import Address, TcpAddress, UnixAddress
from tunnel.net.listen import Successor, open_listener
from tunnel.net.sockets import SocketAddress, resolve_now
from tunnel.relay.close_reason import CloseReason
from tunnel.relay.ending import RelayEnding
from tunnel.relay.handshake import Handshake
from tunnel.relay.linger import reset
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.tls.engine import TlsEnd

NOT_ADMITTED = (
    "no-matching-rule: unauthorized: invalid principal, or principal not allowed: spiffe://a.test/peer reason=no-matching-rule"
)


# -- one connection


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_a_connection_is_relayed_logged_and_counted(harnesses: Harnesses, version: int) -> None:
    harness = harnesses().serve()
    peer, backend = carried(harness, version=version)
    peer.say(b"question")
    assert received(backend) == b"question"
    backend.send(b"answers")
    harness.turn()
    assert peer.hear() == b"answers"
    harness.clock.now += 1.5
    hang_up(harness, peer, backend)
    target = f"unix:{harness.place}/backend"
    who = "peer=spiffe://a.test/peer rule=any"
    assert harness.log.lines == [
        f"opening pipe: unix:@ [] <-> {target} [no tls] {who}",
        f"closed pipe: unix:@ [] <-> {target} [no tls] [forwarded 8 bytes, returned 7 bytes, open 1.5s] {who} end=closed",
    ]
    assert harness.tunnel.counters.summary() == "accepted=1 relayed=1 close_notify=1"
    assert len(harness.tunnel) == 0


def test_quiet_omits_the_lines_about_connections(harnesses: Harnesses) -> None:
    harness = harnesses()
    harness.log.quiet.add(Category.CONNS)
    hang_up(harness, *carried(harness.serve()))
    assert harness.log.lines == []


def test_a_peer_that_no_rule_admits_does_not_reach_the_target(harnesses: Harnesses) -> None:
    harness = harnesses().serve(rules=(IdRule(parse_spiffe_id("spiffe://a.test/other")),))
    peer = Peer(harness, harness.connect())
    peer.shake()
    assert harness.accepted_by_backend() is None
    (line,) = harness.log.lines
    assert line == f"error on TLS handshake from unix:@: {NOT_ADMITTED}"
    assert harness.tunnel.counters.summary() == "accepted=1 refused=1"


def test_early_data_of_the_peer_waits_for_the_target(harnesses: Harnesses) -> None:
    harness = harnesses(target=NAMED).serve()
    peer = Peer(harness, harness.connect()).shake()
    peer.say(b"as soon as it could")
    harness.asked[0][1]((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
    harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None
    assert received(backend) == b"as soon as it could"


def test_a_health_check_is_counted_and_not_logged(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    for _ in range(3):
        harness.connect().close()
        harness.turn()
    assert harness.log.lines == []
    assert harness.tunnel.counters.summary() == "accepted=3 closed_without_data=3"
    assert len(harness.tunnel) == 0


def test_a_peer_that_sends_something_and_closes_is_no_health_check(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    sock = harness.connect()
    sock.send(b"\x16\x03\x01")
    sock.close()
    harness.turn()
    (line,) = harness.log.lines
    assert line == "error on TLS handshake from unix:@: connection closed in the handshake reason=closed-during-handshake"
    assert harness.tunnel.counters.summary() == "accepted=1 refused=1"


HOSTILE = [
    {"uri": "spiffe://a.test/" + "x" * 2000},
    {"uri": "spiffe://b.test/w", "subject": "\u202e" * 21},
    {"uri": "spiffe://a.test/w", "uris": ["spiffe://a.test/" + "\\" * 900]},
    {"uri": "spiffe://a.test/w", "dns_names": ["x" * 60 + ".test"] * 200},
]


@pytest.mark.parametrize("fields", HOSTILE)
@pytest.mark.parametrize("rules", [(), ANYONE])
def test_no_certificate_makes_a_long_line(harnesses: Harnesses, fields: dict[str, Any], rules: tuple[Rule, ...]) -> None:
    named = dict(fields)
    who = identity(named.pop("uri"), root=ROOT, **named)
    harness = harnesses().serve(rules=rules)
    peer = Peer(harness, harness.connect(), who=who)
    with suppress(TlsError):
        peer.shake()
    harness.turn()
    for line in harness.log.lines:
        assert len(line) < 2 * MAX_FOREIGN_TEXT + 2048 if "pipe:" in line else len(line) < MAX_FOREIGN_TEXT + 200
    assert harness.log.lines


def test_a_target_that_refuses_is_logged_and_counted(harnesses: Harnesses) -> None:
    harness = harnesses(target=UnixAddress("/nowhere/at/all")).serve()
    peer = Peer(harness, harness.connect()).shake()
    assert harness.log.lines[0].startswith("error on dial: unix:/nowhere/at/all: ")
    assert harness.log.lines[0].endswith(f" reason=connection-refused{KNOWN}")
    assert harness.tunnel.counters.summary() == "accepted=1 dial_failed=1"
    assert peer.hear() == b""
    assert peer.side.end.has_ended, "who has shaken hands hears an orderly end, as from ghostunnel"


def test_a_connection_has_a_longest_life(harnesses: Harnesses) -> None:
    harness = harnesses(max_conn_lifetime=100).serve()
    peer, backend = carried(harness)
    harness.later(99)
    peer.say(b"in the 99th second")
    assert received(backend) == b"in the 99th second"
    harness.later(2)
    assert len(harness.tunnel) == 0
    assert harness.log.lines[1].startswith("error during copy: max connection lifetime reached ")
    assert harness.log.lines[2].endswith(" end=max-conn-lifetime")


# -- the identity


def test_without_an_identity_connections_are_closed_at_once(harnesses: Harnesses) -> None:
    harness = harnesses().accept()
    for _ in range(3):
        assert is_over(harness.connect())
    assert harness.log.take() == ["no identity yet; closing new connections until a valid identity is available"]
    assert harness.tunnel.counters.summary() == "accepted=3 no_identity=3"
    harness.tunnel.swap(generation())
    assert harness.log.take() == ["identity is valid: accepting new connections"]
    carried(harness)


def test_a_withdrawn_identity_is_used_for_its_grace_and_no_longer(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    old_peer, old_backend = carried(harness)
    harness.tunnel.withdraw(60)
    harness.clock.now += 59.9
    carried(harness)
    harness.log.take()
    harness.clock.now += 0.1
    for _ in range(3):
        assert is_over(harness.connect())
    harness.tunnel.review()
    why = "identity spiffe://a.test/ours has been withdrawn"
    assert harness.log.take() == [f"{why}; closing new connections until a valid identity is available"]
    old_peer.say(b"what is open goes on")
    assert received(old_backend) == b"what is open goes on"


def test_a_repeated_withdrawal_has_no_new_grace_period(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    harness.tunnel.withdraw(60)
    harness.clock.now += 50
    harness.tunnel.withdraw(60)
    harness.wall -= 3600  # the clock on the wall may jump, which gives no new grace
    assert harness.tunnel.review() is not None
    harness.clock.now += 10
    assert harness.tunnel.review() is None


@pytest.mark.parametrize("how", ["swap", "confirm"])
@pytest.mark.parametrize("waited", [10, 1000])
def test_an_identity_that_comes_back_is_used_again(harnesses: Harnesses, how: str, waited: float) -> None:
    harness = harnesses().serve()
    harness.tunnel.withdraw(60)
    harness.clock.now += waited
    harness.tunnel.review()
    harness.log.take()
    if how == "swap":
        harness.tunnel.swap(generation(2))
    else:
        harness.tunnel.confirm()
    assert harness.log.take() == (["identity is valid: accepting new connections"] if waited > 60 else [])
    harness.clock.now += 1000
    carried(harness)
    harness.tunnel.withdraw(60)
    harness.clock.now += 59
    assert harness.tunnel.review() is not None, "a later withdrawal has a grace of its own"


def test_an_expired_identity_serves_nobody(harnesses: Harnesses) -> None:
    harness = harnesses().serve(lasts=100)
    harness.wall += 100
    carried(harness)
    harness.log.take()
    harness.wall += 1
    assert is_over(harness.connect())
    (line,) = harness.log.take()
    assert line.startswith("identity spiffe://a.test/ours has expired at 2026-11-22T12:01:40Z; ")
    harness.tunnel.confirm()
    assert is_over(harness.connect()), "it does not help that it is still ours"
    harness.tunnel.swap(generation(2, lasts=10_000))
    carried(harness)


def test_the_reason_for_which_nobody_is_served_is_known_at_any_moment(harnesses: Harnesses) -> None:
    """The gauge is computed on request, without an accept or a check of the clock in between."""
    harness = harnesses()
    changes: list[str] = []
    harness.tunnel.on_identity_error = changes.append
    assert harness.tunnel.identity_error == "no identity yet"
    harness.serve(lasts=100)
    assert (harness.tunnel.identity_error, harness.tunnel.gauges().is_identity_usable) == ("", True)
    harness.wall += 101
    expired = "identity spiffe://a.test/ours has expired at 2026-11-22T12:01:40Z"
    assert (harness.tunnel.identity_error, harness.tunnel.gauges().is_identity_usable) == (expired, False)
    harness.wall -= 101
    harness.tunnel.withdraw(60)
    harness.clock.now += 59.9
    assert harness.tunnel.identity_error == ""
    harness.clock.now += 0.1
    assert harness.tunnel.identity_error == "identity spiffe://a.test/ours has been withdrawn"
    assert changes == []
    harness.tunnel.review()
    harness.tunnel.confirm()
    assert changes == ["identity spiffe://a.test/ours has been withdrawn", ""]


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [(-200, -100, "has expired at 2026-11-22T11:58:20Z"), (100, 200, "is not valid before 2026-11-22T12:01:40Z")],
)
def test_with_a_certificate_from_a_file_peers_refuse_by_its_dates_and_we_do_not(
    harnesses: Harnesses, start: float, end: float, why: str
) -> None:
    harness = harnesses().serve()
    dates = {"begins": WALL + timedelta(seconds=start), "expires": WALL + timedelta(seconds=end)}
    harness.tunnel.swap(replace(generation(2), identity="CN=ours", is_bound_by_expiry=False, **dates))
    assert harness.tunnel.identity_error == f"certificate CN=ours {why}"
    assert harness.log.take() == [
        f"certificate CN=ours {why}; peers that verify it refuse new connections until a valid certificate is loaded"
    ]
    carried(harness)
    harness.log.take()
    harness.tunnel.swap(generation(3))
    assert harness.log.take() == ["identity is valid: accepting new connections"]
    assert harness.tunnel.identity_error == ""


NOBODY: list[tuple[dict[str, Any], str]] = [
    ({"rules": ()}, "no-matching-rule"),
    ({"bundles": BundleSet({HOME: TrustBundle(HOME, ())})}, "unknown-authority"),
]


@pytest.mark.parametrize(("fields", "reason"), NOBODY, ids=["no rule", "no authority"])
@pytest.mark.parametrize("when", ["before the first byte", "in the handshake", "while the target is looked for"])
def test_a_generation_that_comes_before_the_relay_judges_the_peer_again(
    harnesses: Harnesses, when: str, fields: dict[str, Any], reason: str
) -> None:
    harness = harnesses(target=NAMED).serve()
    peer = Peer(harness, harness.connect())
    if when == "before the first byte":
        harness.tunnel.swap(generation(2, **fields))
    peer.socket.sendall(peer.side.shake())
    harness.turn()
    if when == "in the handshake":
        harness.tunnel.swap(generation(2, **fields))
    peer.socket.sendall(peer.side.shake(received(peer.socket)))
    harness.turn()
    if when == "while the target is looked for":
        harness.tunnel.swap(generation(2, **fields))
        ((_address, answer),) = harness.asked
        answer((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
        harness.turn()
        assert is_over(harness.accepted_by_backend())
    assert harness.tunnel.counters.reasons == {reason: 1}
    assert (harness.tunnel.counters.relayed, len(harness.tunnel)) == (0, 0)
    assert f"reason={reason}" in harness.log.lines[-1]


@pytest.mark.parametrize("is_admitted", [True, False])
def test_a_policy_that_came_meanwhile_is_asked_on_a_thread(harnesses: Harnesses, is_admitted: bool) -> None:
    harness = harnesses(target=NAMED).serve()
    Peer(harness, harness.connect()).shake()
    harness.tunnel.swap(generation(2, rules=(PolicyRule("data.x", lambda _peer: is_admitted),)))
    ((_address, answer),) = harness.asked
    answer((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
    for _ in range(600):  # a minute at most
        harness.loop.turn(0.1)
        if harness.tunnel.counters.relayed or harness.tunnel.counters.reasons:
            break
    assert harness.tunnel.counters.relayed == is_admitted
    assert harness.tunnel.counters.reasons == ({} if is_admitted else {"no-matching-rule": 1})


def test_a_policy_that_is_still_evaluated_at_the_connect_timeout_refuses_the_peer(harnesses: Harnesses) -> None:
    is_decided = threading.Event()
    harness = harnesses(target=NAMED, connect_timeout=10).serve()
    records = records_of(harness)
    Peer(harness, harness.connect()).shake()
    harness.tunnel.swap(generation(2, rules=(PolicyRule("data.x", lambda _peer: is_decided.wait(60)),)))
    ((_address, answer),) = harness.asked
    answer((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
    harness.turn()
    harness.later(11)
    is_decided.set()
    (record,) = records
    assert (record.outcome, record.reason) == (ConnectionOutcome.REFUSED, "handshake-timeout")
    assert record.detail == "access policy: exceeded the connect timeout of 10s"


def test_a_policy_that_has_not_begun_is_cancelled_with_its_session(
    harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued: Future[object] = Future()  # as if all threads were busy
    harness = harnesses(connect_timeout=10).serve()
    peer = Peer(harness, harness.connect())
    peer.socket.sendall(peer.side.shake())
    harness.turn()
    rule = PolicyRule("data.policy.allow", lambda _peer: True)
    harness.tunnel.swap(generation(2, rules=(rule,)))
    monkeypatch.setattr(harness.loop, "call_in_thread", lambda *_arguments: queued)
    peer.socket.sendall(peer.side.shake(received(peer.socket)))
    harness.turn()
    harness.later(11)
    assert queued.cancelled()
    assert len(harness.tunnel) == 0


@pytest.mark.parametrize("is_server", [True, False])
def test_a_peer_that_the_newer_generation_admits_is_relayed_by_its_rule(harnesses: Harnesses, is_server: bool) -> None:
    harness = harnesses(is_server=is_server).serve()
    caller = harness.connect()
    sock = caller if is_server else harness.accepted_by_backend()
    assert sock is not None
    peer = Peer(harness, sock, is_server=not is_server)
    if is_server:
        peer.socket.sendall(peer.side.shake())
        harness.turn()
    harness.tunnel.swap(generation(2, is_server=is_server, rules=(IdRule(parse_spiffe_id("spiffe://a.test/peer")),)))
    if is_server:
        peer.socket.sendall(peer.side.shake(received(peer.socket)))
    else:
        peer.shake()
    harness.turn()
    assert harness.tunnel.counters.relayed == 1
    assert "rule=id:spiffe://a.test/peer" in harness.log.lines[-1]


def test_a_client_that_sends_nothing_costs_no_tls_state(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    opened: list[object] = []
    harness.tunnel.swap(generation(2))
    context = harness.tunnel.generation.context
    real = type(context).open_end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(context), "open_end", lambda made, *given: opened.append(made) or real(made, *given))
        silent = [harness.connect() for _ in range(5)]
        assert (len(harness.tunnel), opened) == (5, [])
        Peer(harness, silent[0]).shake()
        assert opened.count(context) == 1


def test_more_handshakes_than_there_are_slots_wait_and_are_refused_with_their_reason(harnesses: Harnesses) -> None:
    harness = harnesses(max_handshakes=1, connect_timeout=10).serve()
    slow, waiting, late = (Peer(harness, harness.connect()) for _ in range(3))
    slow.socket.sendall(slow.side.shake())
    harness.turn()
    waiting.socket.sendall(waiting.side.shake())
    late.socket.sendall(late.side.shake())
    harness.turn()
    assert received(waiting.socket) == b""
    slow.socket.close()  # in the middle of its handshake
    harness.turn()
    waiting.socket.sendall(waiting.side.shake(received(waiting.socket)))
    harness.turn()
    assert harness.accepted_by_backend() is not None, "the slot that was given back"
    late.socket.sendall(late.side.shake(received(late.socket)))
    harness.turn()
    assert harness.accepted_by_backend() is not None


def test_no_slot_is_lost_when_everything_is_given_up_at_once(harnesses: Harnesses) -> None:
    harness = harnesses(max_handshakes=1).serve()
    for peer in [Peer(harness, harness.connect()) for _ in range(6)]:
        peer.socket.sendall(peer.side.shake())
        harness.turn()
    handshakes = harness.tunnel.handshakes
    assert (handshakes._held, sum(map(len, handshakes._waiting.values()))) == (1, 5)
    harness.tunnel.drain()
    harness.turn()
    assert (handshakes._held, handshakes._held_by_source, handshakes._waiting) == (0, {}, {})


def test_a_connection_that_finds_no_slot_in_time_is_refused(harnesses: Harnesses) -> None:
    harness = harnesses(max_handshakes=1, connect_timeout=10).serve()
    refused = Peer(harness, harness.connect())
    harness.clock.now += 5
    holder = Peer(harness, harness.connect())
    for peer in (holder, refused):
        peer.socket.sendall(peer.side.shake())
        harness.turn()
    assert received(refused.socket) == b"", "the other one has the slot"
    harness.later(5)
    assert harness.tunnel.counters.reasons == {"too-many-handshakes": 1}
    assert "reason=too-many-handshakes" in "".join(harness.log.lines)


# -- accepting


def test_at_its_limit_a_tunnel_accepts_no_more_until_one_has_ended(harnesses: Harnesses) -> None:
    harness = harnesses(max_concurrent_conns=2).serve()
    first, first_backend = carried(harness)
    carried(harness)
    waiting = harness.connect()
    harness.turn()
    assert len(harness.tunnel) == 2
    assert harness.tunnel.counters.accepted == 2
    assert not is_over(waiting), "it waits in the queue"
    hang_up(harness, first, first_backend)
    assert harness.tunnel.counters.accepted == 3
    peer = Peer(harness, waiting).shake()
    backend = harness.accepted_by_backend()
    assert backend is not None
    peer.say(b"served after all")
    assert received(backend) == b"served after all"


def test_out_of_descriptors_accepting_waits_longer_each_time_up_to_a_second(harnesses: Harnesses) -> None:
    harness = harnesses()
    listener = with_listener(harness, *[errno.EMFILE] * 12)
    start = harness.clock.now
    for _ in range(4000):
        harness.turn(2)  # the deadline, and the attempt that follows from it
        harness.clock.now += 0.001
        if len(listener.attempts) == 11:
            break
    waits = [round(after - before, 3) for before, after in zip(listener.attempts, listener.attempts[1:], strict=False)]
    ideal = [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert listener.attempts[0] == start
    assert all(0 <= round(wait - wanted, 3) <= 0.001 for wait, wanted in zip(waits, ideal, strict=False)), waits
    assert harness.tunnel.counters.accept_errors == len(listener.attempts)
    assert harness.log.lines[0] == "error accepting connection: accept tcp:127.0.0.1:8443: too many open files"


def test_after_an_accepted_connection_the_first_wait_is_short_again(harnesses: Harnesses) -> None:
    harness = harnesses()
    near, far = socket.socketpair()
    harness.opened(far)
    listener = with_listener(harness, *[errno.EMFILE] * 6, near, errno.EMFILE)
    while len(listener.attempts) < 8:
        harness.later(1)
    assert harness.tunnel.counters.accepted == 1
    harness.clock.now += 0.0051
    harness.turn(2)
    assert len(listener.attempts) > 8


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO])
def test_a_connection_that_was_gone_before_it_was_accepted_is_nobodys_error(harnesses: Harnesses, number: int) -> None:
    harness = harnesses()
    near, far = socket.socketpair()
    harness.opened(far)
    with_listener(harness, number, near)
    harness.turn(2)
    assert harness.log.lines == []
    assert harness.tunnel.counters.summary() == "accepted=1"


def test_while_accepting_waits_the_end_of_a_session_does_not_end_the_wait(harnesses: Harnesses) -> None:
    harness = harnesses()
    near, far = socket.socketpair()
    listener = with_listener(harness, near, errno.EMFILE)
    harness.turn(2)
    assert len(listener.attempts) == 2
    far.close()
    harness.turn()
    assert len(harness.tunnel) == 0
    assert len(listener.attempts) == 2
    harness.later(0.1)
    assert len(listener.attempts) > 2


# -- names


def test_a_name_is_asked_for_when_a_peer_is_admitted_and_answered_later(harnesses: Harnesses) -> None:
    harness = harnesses(target=NAMED).serve()
    sock = harness.connect()
    assert harness.asked == [], "not for a stranger"
    peer = Peer(harness, sock).shake()
    ((address, answer),) = harness.asked
    assert address == NAMED
    assert harness.accepted_by_backend() is None
    answer((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
    harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None
    peer.say(b"through")
    assert received(backend) == b"through"


def test_a_name_that_is_not_found_is_logged_and_counted(harnesses: Harnesses) -> None:
    harness = harnesses(target=NAMED).serve()
    peer = Peer(harness, harness.connect()).shake()
    harness.asked[0][1](TargetError(TargetFault.RESOLVE, "db.example:5432: name or service not known"))
    harness.turn()
    assert harness.log.lines == [f"error on dial: db.example:5432: name or service not known reason=name-not-resolved{KNOWN}"]
    assert harness.tunnel.counters.dial_failed == 1
    peer.hear()
    assert is_over(peer.socket)


@pytest.mark.parametrize("is_found", [True, False])
def test_an_answer_for_a_session_that_is_gone_is_dropped(harnesses: Harnesses, is_found: bool) -> None:
    harness = harnesses(target=NAMED).serve()
    peer = Peer(harness, harness.connect()).shake()
    peer.socket.close()
    harness.turn()
    assert len(harness.tunnel) == 0
    assert harness.log.take() == [
        f"error on dial: client closed the connection before the target was connected reason=client-gone{KNOWN}"
    ]
    assert harness.tunnel.counters.client_gone == 1
    found = (SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),)
    harness.asked[0][1](found if is_found else TargetError(TargetFault.RESOLVE, "not found"))
    harness.turn()
    assert harness.accepted_by_backend() is None
    assert harness.log.lines == []


def test_a_peer_that_goes_while_the_target_is_dialled_takes_the_dialling_with_it(harnesses: Harnesses) -> None:
    harness = harnesses(target=silent_target()).serve()
    peer = Peer(harness, harness.connect()).shake()
    assert len(harness.tunnel) == 1
    peer.socket.close()
    harness.turn()
    assert len(harness.tunnel) == 0
    assert not [sock for sock in harness.loop._owners.values() if sock is not harness.tunnel], "every socket is given up"


_SILENT: list[socket.socket] = []


def silent_target() -> TcpAddress:
    """A target that neither accepts nor refuses connections: its queue is full."""
    if not _SILENT:
        _SILENT.append(socket.socket())
        _SILENT[0].bind(("127.0.0.1", 0))
        _SILENT[0].listen(0)
        for _ in range(3):
            _SILENT.append(socket.socket())
            _SILENT[-1].setblocking(False)
            _SILENT[-1].connect_ex(_SILENT[0].getsockname())
    return TcpAddress("127.0.0.1", str(_SILENT[0].getsockname()[1]))


@pytest.fixture(autouse=True, scope="module")
def _close_silent() -> Iterator[None]:
    yield
    for sock in _SILENT:
        sock.close()
    _SILENT.clear()


# -- limits before the relay


def test_a_handshake_that_does_not_end_is_given_up(harnesses: Harnesses) -> None:
    harness = harnesses(connect_timeout=10).serve()
    sock = harness.connect()
    sock.send(Side(PEER_CONTEXTS[False, TLS13]).shake()[:20])
    harness.later(9.9)
    assert len(harness.tunnel) == 1
    harness.later(0.2)
    assert harness.log.lines == [
        "error on TLS handshake from unix:@: exceeded the connect timeout of 10s reason=handshake-timeout"
    ]
    assert len(harness.tunnel) == 0


@pytest.mark.parametrize("phase", ["name", "dial"])
@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_a_target_that_does_not_answer_is_given_up_within_the_same_time(
    harnesses: Harnesses, phase: str, is_server: bool
) -> None:
    target = NAMED if phase == "name" else silent_target()
    harness = harnesses(connect_timeout=10, target=target, is_server=is_server).serve()
    sock = harness.connect()
    harness.later(5)
    if is_server:
        Peer(harness, sock).shake()
    harness.later(4.9)
    assert len(harness.tunnel) == 1
    harness.later(0.2)
    for_whom = KNOWN if is_server else CALLER
    assert harness.log.lines == [f"error on dial: {target}: exceeded the connect timeout of 10s reason=timeout{for_whom}"]
    assert harness.tunnel.counters.dial_failed == 1
    assert len(harness.tunnel) == 0
    harness.later(100)  # for a peer that has not taken its leave
    assert not [owner for owner in harness.loop._owners.values() if owner is not harness.tunnel]


def test_a_carried_connection_is_not_bound_by_the_connect_timeout(harnesses: Harnesses) -> None:
    harness = harnesses(connect_timeout=10).serve()
    peer, backend = carried(harness)
    harness.later(1000)
    peer.say(b"long after")
    assert received(backend) == b"long after"


# -- the end of all


def test_a_drain_lets_what_is_carried_go_on_and_gives_the_rest_up(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    peer, backend = carried(harness)
    shaking = harness.connect()
    emptied: list[int] = []
    harness.tunnel.on_empty = lambda: emptied.append(len(harness.tunnel))
    harness.tunnel.drain()
    harness.turn()
    assert is_over(shaking)
    assert len(harness.tunnel) == 1
    with pytest.raises(OSError, match=r"refused|No such file"):
        harness.connect()
    peer.say(b"in peace")
    assert received(backend) == b"in peace"
    hang_up(harness, peer, backend)
    assert emptied == [0]


def replace_front(harness: TunnelHarness) -> None:
    """Put a socket of another process where the tunnel listens."""
    (harness.place / "front").rename(harness.place / "moved")
    other = harness.opened(socket.socket(socket.AF_UNIX))
    other.bind(str(harness.place / "front"))
    other.listen()


def test_a_drain_with_a_successor_gives_up_no_connection(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    shaking = Peer(harness, harness.connect())
    waiting = harness.opened(socket.socket(socket.AF_UNIX))
    waiting.connect(str(harness.place / "front"))
    replace_front(harness)
    emptied: list[int] = []
    harness.tunnel.on_empty = lambda: emptied.append(len(harness.tunnel))
    for _ in range(2):  # again when the process ends
        harness.tunnel.drain()
    assert not harness.tunnel.is_drained
    harness.later(0.5)
    waiting.setblocking(False)
    peers = shaking.shake(), Peer(harness, waiting).shake()
    backends = [harness.accepted_by_backend() for _ in peers]
    assert not harness.tunnel.is_drained
    assert (harness.place / "front").exists()
    for peer, backend in zip(peers, backends, strict=True):
        assert backend is not None
        peer.say(b"late")
        assert received(backend) == b"late"
        hang_up(harness, peer, backend)
    assert harness.tunnel.is_drained
    assert emptied == [0]
    assert not [line for line in harness.log.lines if "warning" in line]


def test_a_drain_leaves_handshakes_alone_if_a_service_manager_keeps_the_socket(harnesses: Harnesses) -> None:
    harness = harnesses()
    near, far = socket.socketpair()
    far.setblocking(False)
    harness.opened(far)
    listener = with_listener(harness, near)
    listener.successor = Successor.MANAGER
    harness.turn()
    for _ in range(2):
        harness.tunnel.drain()
    assert listener.is_closed
    Peer(harness, far).shake()
    assert harness.accepted_by_backend() is not None


def test_a_cut_ends_a_hand_over(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    waiting = harness.opened(socket.socket(socket.AF_UNIX))
    waiting.connect(str(harness.place / "front"))
    replace_front(harness)
    harness.tunnel.drain()
    assert harness.tunnel.abort() == 0
    assert harness.tunnel.is_drained
    with pytest.raises(ConnectionResetError):
        waiting.recv(1)


def test_a_drain_ends_a_wait_of_accepting(harnesses: Harnesses) -> None:
    harness = harnesses()
    listener = with_listener(harness, errno.EMFILE)
    harness.turn(1)
    harness.tunnel.drain()
    harness.later(100)
    assert len(listener.attempts) == 1
    assert listener.is_closed


def test_a_cut_ends_what_is_open(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    carried(harness)
    carried(harness)
    assert harness.tunnel.abort() == 2
    assert len(harness.tunnel) == 0
    assert [line.rpartition(" ")[2] for line in harness.log.lines[2:]] == ["end=shutdown"] * 2


# -- bugs


def test_a_bug_in_one_session_ends_only_it_and_is_logged_in_one_line(
    harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = harnesses().serve()
    peer, backend = carried(harness)
    other, other_backend = carried(harness)
    harness.log.take()
    with monkeypatch.context() as patched:
        patched.setattr(TlsEnd, "open_one", fail)
        patched.setattr(TlsEnd, "open_records", fail)
        peer.say(b"boom")
    lines = harness.log.take()
    assert lines[0].startswith("internal error: Traceback ")
    assert "RuntimeError: a bug" in lines[0]
    assert "\n" not in lines[0]
    assert lines[1].endswith(" end=internal-error")
    assert harness.tunnel.counters.crashed == 1
    assert len(harness.tunnel) == 1
    other.say(b"unharmed")
    assert received(other_backend) == b"unharmed"
    assert backend.fileno() >= 0


def test_a_bug_between_the_verdict_and_the_relay_ends_its_session_only(harnesses: Harnesses) -> None:
    harness = harnesses(target=NAMED)
    harness.tunnel.targets._resolve_later = fail
    harness.serve()
    Peer(harness, harness.connect()).shake()
    assert harness.tunnel.counters.crashed == 1
    assert len(harness.tunnel) == 0
    assert "RuntimeError: a bug" in harness.log.lines[0]
    assert is_over(harness.connect()) is False, "the next one is accepted"


@pytest.mark.parametrize("step", ["start", "ready"])
def test_a_bug_in_the_first_step_ends_its_session_at_once(
    harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Also while the connection is accepted, in an event of the listener."""
    harness = harnesses().serve()
    records = records_of(harness)
    with monkeypatch.context() as patched:
        patched.setattr(Handshake, step, fail)
        client = harness.connect()
        assert is_over(client)
    assert (harness.tunnel.counters.crashed, len(harness.tunnel)) == (1, 0)
    assert [record.outcome for record in records] == [ConnectionOutcome.CRASHED]
    assert harness.tunnel.counters.failed == 1, "it did not reach the relay"
    carried(harness)
    harness.later(11)
    assert (harness.tunnel.counters.crashed, len(harness.tunnel)) == (1, 1), "nothing is left of the first one"


@pytest.mark.parametrize("is_relayed", [False, True])
def test_a_bug_while_the_end_is_recorded_keeps_no_session(
    harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch, is_relayed: bool
) -> None:
    harness = harnesses(max_concurrent_conns=1).serve()
    with monkeypatch.context() as patched:
        patched.setattr(harness.tunnel.connection_log, "write_end", fail)
        if is_relayed:
            hang_up(harness, *carried(harness))
        else:
            harness.connect().close()
            harness.turn()
    assert (harness.tunnel.counters.crashed, len(harness.tunnel)) == (1, 0)
    carried(harness)


def test_a_bug_while_a_relay_closes_keeps_no_session(harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = harnesses().serve()
    records = records_of(harness)
    close = RelayEnding.close

    def close_and_fail(ending: RelayEnding, reason: CloseReason) -> None:
        close(ending, reason)
        fail()

    with monkeypatch.context() as patched:
        patched.setattr(RelayEnding, "close", close_and_fail)
        hang_up(harness, *carried(harness))
    assert (harness.tunnel.counters.crashed, len(harness.tunnel)) == (1, 0)
    assert [record.outcome for record in records] == [ConnectionOutcome.RELAYED]


def fail(*_anything: object) -> None:
    raise RuntimeError("a bug")


# -- as a client


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_a_client_relays_and_logs_it(harnesses: Harnesses, version: int) -> None:
    harness = harnesses(is_server=False).serve()
    program, server = dialled(harness, version=version)
    server.shake()
    program.send(b"plain")
    harness.turn()
    assert server.hear() == b"plain"
    server.say(b"and back!")
    assert received(program) == b"and back!"
    server.end()
    program.close()
    harness.turn()
    opening, closing = harness.log.lines
    assert opening.startswith(f"opening pipe: unix:@ [no tls] <-> unix:{harness.place}/backend [] peer=spiffe://a.test/peer")
    assert "[forwarded 5 bytes, returned 9 bytes, open " in closing


def test_data_sent_before_the_server_is_authorized_waits(harnesses: Harnesses) -> None:
    harness = harnesses(is_server=False).serve()
    program, server = dialled(harness)
    program.send(b"too early")
    harness.turn()
    server.shake()
    harness.turn()
    assert server.hear() == b"too early"


def test_a_server_that_closes_without_data_is_an_error_on_dial(harnesses: Harnesses) -> None:
    harness = harnesses(is_server=False).serve()
    program, server = dialled(harness)
    received(server.socket)
    server.socket.close()
    harness.turn()
    (line,) = harness.log.lines
    target = f"unix:{harness.place}/backend"
    assert line.startswith(
        f"error on dial: TLS handshake with {target}: the target closed the connection without sending anything"
    )
    assert harness.tunnel.counters.summary() == "accepted=1 refused=1"
    assert program.fileno() >= 0


def test_a_server_that_resets_without_data_is_logged_as_reset(harnesses: Harnesses) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        harness = harnesses(is_server=False, target=TcpAddress("127.0.0.1", str(listener.getsockname()[1]))).serve()
        harness.connect()
        accepted = listener.accept()[0]
        reset(accepted)
        accepted.close()
        harness.turn()
    (line,) = harness.log.lines
    assert line.endswith(f": connection reset by peer reason=reset-during-handshake{CALLER}")


def test_data_of_the_server_before_its_socket_is_watched_is_read(harnesses: Harnesses) -> None:
    """Its banner came with the event for its connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        harness = harnesses(is_server=False, target=TcpAddress("127.0.0.1", str(listener.getsockname()[1]))).serve()
        program = harness.opened(socket.socket(socket.AF_UNIX))
        program.connect(str(harness.place / "front"))
        harness.turn(1)
        server = harness.opened(listener.accept()[0])
        server.sendall(b"SSH-2.0-server\r\n")
        harness.turn()
    (line,) = harness.log.lines
    assert line.startswith("error on dial: TLS handshake with tcp:127.0.0.1:")
    assert line.endswith(f" reason=tls-failure{CALLER}")


def test_a_server_that_sends_nothing_exceeds_the_connect_timeout(harnesses: Harnesses) -> None:
    harness = harnesses(is_server=False, connect_timeout=10).serve()
    dialled(harness)
    harness.later(11)
    (line,) = harness.log.lines
    assert line.startswith("error on dial: TLS handshake with unix:")
    assert line.endswith(f"exceeded the connect timeout of 10s reason=handshake-timeout{CALLER}")


def test_a_server_that_no_rule_admits_is_an_error_on_dial_and_gets_no_data(harnesses: Harnesses) -> None:
    harness = harnesses(is_server=False).serve(rules=(IdRule(parse_spiffe_id("spiffe://a.test/other")),))
    program, server = dialled(harness)
    program.send(b"secret")
    harness.turn()
    with pytest.raises(TlsError, match="alert"):
        server.shake()
    (line,) = harness.log.lines
    assert line.endswith(f": {NOT_ADMITTED}{CALLER}")
    assert len(harness.tunnel) == 0


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_a_refusal_by_the_server_is_logged_as_such(harnesses: Harnesses, version: int) -> None:
    """In TLS 1.3 the refusal arrives after our own handshake is done."""
    harness = harnesses(is_server=False).serve()
    program, server = dialled(harness)
    server.side = Side(refusing_server(version))
    flight = b""
    for _ in range(4):
        try:
            flight = server.side.shake(received(server.socket))
        except PeerDenied:
            flight = server.side.end.take()
        with suppress(BrokenPipeError):  # it has heard enough
            server.socket.sendall(flight)
        harness.turn()
    assert any("refused us: " in line for line in harness.log.lines), harness.log.lines
    assert len(harness.tunnel) == 0
    assert program.fileno() >= 0


def refusing_server(version: int) -> Any:
    return context(PEER, admission(lasting_authority("b.test")), is_server=True, version=version)


@pytest.mark.parametrize(
    ("is_server", "target", "name"),
    [
        (False, TcpAddress("db.example", "5432"), "db.example"),
        (False, TcpAddress("localhost", "5432"), "localhost"),
        (False, TcpAddress("127.0.0.1", "5432"), ""),
        (False, TcpAddress("::1", "5432"), ""),
        (False, TcpAddress("", "5432"), ""),
        (False, UnixAddress("/run/db"), ""),
        (False, UnixAddress("@db"), ""),
        (True, TcpAddress("db.example", "5432"), ""),
        (True, TcpAddress("localhost", "5432"), ""),
        (False, TcpAddress("127.0.0.1", "postgresql"), ""),
        (False, TcpAddress("fe80::1%eth0", "5432"), ""),
        (False, TcpAddress("db.example", "postgresql"), "db.example"),
        (False, TcpAddress("db.example.", "5432"), "db.example"),
    ],
)
def test_the_name_that_a_client_asks_for_is_its_targets_host(is_server: bool, target: Address, name: str) -> None:
    assert listener_config(is_server=is_server, target=target).sni_for(target) == name


def test_a_clients_handshake_uses_the_generation_of_its_moment_and_not_of_the_accept(harnesses: Harnesses) -> None:
    """A dial may take seconds: input received meanwhile is kept, and an identity that expired meanwhile is not presented."""
    harness = harnesses(target=TcpAddress("db.example", "5432"), is_server=False).serve(lasts=100)
    harness.connect()
    ((_, answer),) = harness.asked
    harness.wall += 101
    answer(resolve_now(UnixAddress(str(harness.place / "backend"))) or ())
    harness.turn()
    dialled, _ = harness.backend.accept()
    assert received(harness.opened(dialled)) == b"", "no ClientHello with an identity that has expired"
    assert harness.tunnel.counters.no_identity == 1


# -- who sends something and closes at once


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_every_program_that_writes_and_closes_at_once_is_carried(harnesses: Harnesses, version: int) -> None:
    harness = harnesses(is_server=False).serve()
    for number in range(20):
        with socket.socket(socket.AF_UNIX) as program:
            program.connect(str(harness.place / "front"))
            program.send(b"message %d" % number)
        harness.turn()
        backend = harness.accepted_by_backend()
        assert backend is not None, harness.log.lines
        server = Peer(harness, backend, is_server=True, version=version).shake()
        assert server.hear() == b"message %d" % number
        assert server.side.end.has_ended
        server.end()
    assert harness.tunnel.counters.summary() == "accepted=20 relayed=20 close_notify=20"


@pytest.mark.parametrize("where", ["name resolution", "handshake"])
def test_a_program_may_write_and_close_while_its_target_is_being_reached(harnesses: Harnesses, where: str) -> None:
    harness = harnesses(is_server=False, target=NAMED).serve()
    program = harness.connect()
    endpoint = SocketAddress(socket.AF_UNIX, str(harness.place / "backend"))
    if where == "handshake":
        harness.asked[0][1]((endpoint,))
        harness.turn()
    program.send(b"a message")
    harness.turn()
    program.close()
    harness.turn()
    if where == "name resolution":
        harness.asked[0][1]((endpoint,))
        harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None, harness.log.lines
    server = Peer(harness, backend, is_server=True).shake()
    assert server.hear() == b"a message"
    assert server.side.end.has_ended


@pytest.mark.parametrize("is_orderly", [True, False], ids=["close_notify", "no close_notify"])
@pytest.mark.parametrize("is_early", [True, False], ids=["with the handshake", "behind it"])
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_a_peer_may_send_and_close_while_its_target_is_dialled(
    harnesses: Harnesses, version: int, is_early: bool, is_orderly: bool
) -> None:
    harness = harnesses(target=NAMED).serve()
    peer = Peer(harness, harness.connect(), version=version)
    if is_early and version == TLS13:
        peer.socket.sendall(peer.side.shake())
        harness.turn()
        stream = peer.side.shake(received(peer.socket))
    else:
        peer.shake()
        stream = b""
    stream += peer.side.seal(b"all that it has to say")
    if is_orderly:
        stream += peer.side.end.close_notify()
    peer.socket.sendall(stream)
    if not is_early:
        harness.turn()
    peer.socket.close()
    harness.turn()
    assert len(harness.tunnel) == 1, harness.log.lines
    harness.asked[0][1]((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
    harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None, harness.log.lines
    assert received(backend) == b"all that it has to say"
    assert is_over(backend)


def test_what_arrived_before_a_reset_is_carried_to_the_target(harnesses: Harnesses) -> None:
    """A TLS 1.3 client that closes without reading the session tickets resets the connection."""
    harness = harnesses(target=NAMED)
    harness.tunnel.swap(generation())
    listener = open_listener(TcpAddress("127.0.0.1", "0"))
    harness.tunnel.open(listener)
    sock = harness.opened(socket.create_connection(listener.socket.getsockname()))
    sock.setblocking(False)
    peer = Peer(harness, sock)
    sock.sendall(peer.side.shake())
    harness.turn()
    sock.sendall(peer.side.shake(received(sock)) + peer.side.seal(b"a request"))
    harness.turn()
    sock.sendall(peer.side.seal(b", and the rest"))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()
    harness.turn()
    harness.asked[0][1]((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
    harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None, harness.log.lines
    assert received(backend) == b"a request, and the rest"
