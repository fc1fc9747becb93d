"""Which open connections are closed, and when, after their peer or our identity has lost what it was admitted with."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.cert_factory import key_of
from tests.support.socket_pairs import is_over, received
from tests.support.tls_ends import TLS12, TLS13, identity, lasting_authority
from tests.support.tunnel_harness import (
    ANYONE,
    HOME,
    NAMED,
    PEER,
    ROOT,
    Harnesses,
    Peer,
    TunnelHarness,
    carried,
    dialled,
    generation,
    records_of,
)
from tunnel.authz.rules import IdRule, PolicyRule, Rule
from tunnel.config.model import KEEP, Access, ClosePolicy
from tunnel.errors import Denial, PeerDenied
from tunnel.identity.credentials import PkiCredentials
from tunnel.lazy_dataclass import replace
from tunnel.listener.generation import Generation, GenerationConfig, build_generation
from tunnel.net.sockets import SocketAddress
from tunnel.relay.close_reason import CloseReason
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

PARTNER = TrustDomain("b.test")
PARTNER_ROOT = lasting_authority("b.test")
ANOTHER = lasting_authority(key=key_of("p256", 8))
GUEST = identity("spiffe://b.test/guest", root=PARTNER_ROOT)
OTHER = identity("spiffe://a.test/other", root=ROOT)
MORTAL_END = datetime(2090, 1, 1, tzinfo=UTC)
MORTAL = identity("spiffe://a.test/mortal", root=ROOT, end=MORTAL_END)
HOME_BUNDLE = TrustBundle(HOME, (ROOT.certificate,))
BOTH = BundleSet({HOME: HOME_BUNDLE, PARTNER: TrustBundle(PARTNER, (PARTNER_ROOT.certificate,))})
VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
ROLES = pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])

NOT_ADMITTED: list[tuple[dict[str, Any], Denial]] = [
    ({"rules": ()}, Denial.NO_RULE),
    ({"rules": (IdRule(parse_spiffe_id("spiffe://a.test/other")),)}, Denial.NO_RULE),
    ({"bundles": BundleSet({PARTNER: BOTH.bundles[PARTNER]})}, Denial.UNKNOWN_TRUST_DOMAIN),
    ({"bundles": BundleSet({HOME: TrustBundle(HOME, ())})}, Denial.UNKNOWN_AUTHORITY),
    ({"bundles": BundleSet({HOME: TrustBundle(HOME, (ANOTHER.certificate,))})}, Denial.UNKNOWN_AUTHORITY),
]
NOT_ADMITTED_IDS = ["no rule", "another rule", "trust domain withdrawn", "no authority", "another authority"]


def opened(harness: TunnelHarness, **fields: Any) -> tuple[Peer, socket.socket]:
    """A peer with an open connection, and the plain program on the other side."""
    if harness.is_server:
        return carried(harness, **fields)
    program, peer = dialled(harness, **fields)
    return peer.shake(), program


def is_alive(harness: TunnelHarness, peer: Peer, plain: socket.socket) -> bool:
    """Whether bytes pass in both directions."""
    peer.say(b"up")
    plain.sendall(b"down")
    harness.turn()
    return (received(plain), peer.hear()) == (b"up", b"down")


# -- what is closed


@VERSIONS
@ROLES
@pytest.mark.parametrize(("fields", "reason"), NOT_ADMITTED, ids=NOT_ADMITTED_IDS)
def test_a_peer_that_is_no_longer_admitted_is_cut_and_the_cause_is_logged_and_counted(
    harnesses: Harnesses, is_server: bool, version: int, fields: dict[str, Any], reason: Denial
) -> None:
    harness = harnesses(is_server=is_server).serve()
    records = records_of(harness)
    peer, plain = opened(harness, version=version)
    assert is_alive(harness, peer, plain)
    harness.log.take()
    harness.tunnel.swap(generation(2, is_server=is_server, **fields))
    harness.turn()
    assert is_over(plain)
    assert is_over(peer.socket)
    (record,) = records
    assert (record.close_reason, record.reason) == (CloseReason.WITHDRAWN, reason.value)
    closing, closed, reviewed = harness.log.take()
    assert closing.startswith("closing connection: the peer is no longer admitted: ")
    assert closing.endswith(f" from={record.source} peer=spiffe://a.test/peer rule=any reason={reason.value}")
    assert closed.endswith("end=withdrawn")
    assert reviewed == "open connections reviewed: connections=1 denied=1 seconds=0.000"
    counters = harness.tunnel.counters
    assert (counters.withdrawals, counters.reasons) == ({reason.value: 1}, {})
    assert counters.other_ends == {"withdrawn": 1}
    assert (counters.broken, counters.reaped) == (0, 0)


def test_a_cut_stream_never_looks_complete(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    peer, _plain = opened(harness)
    harness.tunnel.swap(generation(2, rules=()))
    harness.turn()
    assert received(peer.socket) == b"", "no close_notify"
    assert not peer.side.end.has_ended


@ROLES
def test_a_peer_that_does_not_read_is_cut_at_once(harnesses: Harnesses, is_server: bool) -> None:
    harness = harnesses(is_server=is_server).serve()
    peer, plain = opened(harness)
    sent = 0
    while True:  # until all buffers on the way to the peer are full
        try:
            sent += plain.send(bytes(65536))
        except BlockingIOError:
            harness.turn()
            try:
                sent += plain.send(bytes(65536))
            except BlockingIOError:
                break
    harness.tunnel.swap(generation(2, is_server=is_server, rules=()))
    harness.turn()
    assert len(harness.tunnel) == 0
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        plain.send(b"x")
    assert len(received(peer.socket)) < sent


@ROLES
def test_neighbours_lose_no_byte(harnesses: Harnesses, is_server: bool) -> None:
    harness = harnesses(is_server=is_server).serve(bundles=BOTH)
    guest, _ = opened(harness, who=GUEST)
    neighbours = [opened(harness, who=who) for who in (PEER, OTHER)]
    sent = bytes(range(256)) * 256
    heard: list[list[bytes]] = [[], []]
    for number in range(8):
        if number == 4:
            harness.tunnel.swap(generation(2, is_server=is_server))
        for (peer, plain), parts in zip(neighbours, heard, strict=True):
            peer.say(sent)
            parts.append(received(plain))
    assert len(harness.tunnel) == 2
    assert is_over(guest.socket)
    for (_peer, plain), parts in zip(neighbours, heard, strict=True):
        assert b"".join(parts) + received(plain) == sent * 8
    assert harness.tunnel.counters.withdrawals == {"unknown-trust-domain": 1}


def test_a_rotation_of_our_own_certificate_reviews_nothing(harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = harnesses().serve()
    peer, plain = opened(harness)
    assert harness.tunnel.generation is not None
    rotated = replace(harness.tunnel.generation, number=2)
    monkeypatch.setattr(harness.tunnel.withdrawal, "review_all", lambda _previous: pytest.fail("reviewed"))
    harness.tunnel.swap(rotated)
    assert is_alive(harness, peer, plain)


def test_only_peers_whose_authority_has_changed_are_verified_again(
    harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = harnesses().serve(bundles=BOTH)
    home, partner = opened(harness), opened(harness, who=GUEST)
    verified = []
    judged = generation(
        2,
        bundles=replace(
            BOTH, bundles={**BOTH.bundles, HOME: with_another(HOME_BUNDLE), PARTNER: reissued(BOTH.bundles[PARTNER])}
        ),
    )
    assert judged.admission is not None
    verify = judged.admission._verify
    monkeypatch.setattr(judged.admission, "_verify", lambda path, *times: verified.append(path[0]) or verify(path, *times))
    harness.tunnel.swap(judged)
    harness.turn()
    assert verified == [GUEST.leaf.certificate.der]
    assert is_alive(harness, *home)
    assert is_alive(harness, *partner)


@ROLES
@pytest.mark.parametrize("is_expired", [True, False])
@pytest.mark.parametrize("is_path_lost", [False, True])
def test_an_authority_that_is_removed_after_its_expiry_withdraws_nothing(
    harnesses: Harnesses, is_server: bool, is_expired: bool, is_path_lost: bool
) -> None:
    """The end of a rotation. While it is valid, its removal cuts the connections of its peers."""
    old = lasting_authority(end=MORTAL_END, key=key_of("p256", 9))
    bundle = replace(HOME_BUNDLE, authorities=(*HOME_BUNDLE.authorities, old.certificate))
    harness = harnesses(is_server=is_server).serve(bundles=BundleSet({HOME: bundle}))
    peer, plain = opened(harness, who=identity("spiffe://a.test/peer", root=old))
    harness.wall = MORTAL_END.timestamp() + (1 if is_expired else -1)
    if is_path_lost:  # everybody is verified again
        harness.tunnel.withdrawal._has_kept = True
    harness.tunnel.swap(generation(2, is_server=is_server, bundles=BundleSet({HOME: HOME_BUNDLE})))
    harness.turn()
    if is_expired:
        assert is_alive(harness, peer, plain)
    else:
        assert any("reason=unknown-authority" in line for line in harness.log.lines)


def reissued(bundle: TrustBundle) -> TrustBundle:
    """The bundle with another certificate of the same name and key."""
    return replace(bundle, authorities=(lasting_authority(bundle.trust_domain.name).certificate,))


def with_another(bundle: TrustBundle) -> TrustBundle:
    return replace(bundle, authorities=(*bundle.authorities, ANOTHER.certificate))


def test_connections_of_one_certificate_share_one_verification(harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = harnesses().serve()
    sessions = [opened(harness) for _ in range(5)]
    judged = generation(2, bundles=BundleSet({HOME: reissued(HOME_BUNDLE)}))
    assert judged.admission is not None
    verified = []
    verify = judged.admission._verify
    monkeypatch.setattr(judged.admission, "_verify", lambda path, *times: verified.append(path[0]) or verify(path, *times))
    harness.tunnel.swap(judged)
    harness.turn()
    assert len(verified) == 1
    assert len({id(session.admitted) for session in harness.tunnel.connections}) == 1
    assert all(is_alive(harness, *session) for session in sessions)


def test_a_client_without_a_certificate_is_cut_when_certificates_are_required(harnesses: Harnesses) -> None:
    harness = harnesses()
    harness.tunnel.swap(anonymous(1))
    harness.accept()
    peer, plain = opened(harness)
    harness.tunnel.swap(anonymous(2))
    assert is_alive(harness, peer, plain)
    harness.tunnel.swap(generation(3))
    harness.turn()
    assert is_over(plain)
    assert harness.tunnel.counters.withdrawals == {"no-certificate": 1}


def anonymous(number: int) -> Generation:
    credentials = PkiCredentials(PEER.chain, PEER.leaf.key, (ROOT.certificate,))
    return build_generation(number, credentials, GenerationConfig(True, Access((), is_mutual=False)))


def test_a_peer_stays_when_certificates_are_no_longer_required(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    peer, plain = opened(harness)
    harness.tunnel.swap(anonymous(2))
    harness.turn()
    assert is_alive(harness, peer, plain)


@pytest.mark.parametrize("change", [with_another, reissued])
def test_a_peer_stays_while_an_authority_with_its_issuers_key_is_trusted(
    harnesses: Harnesses, change: Callable[[TrustBundle], TrustBundle]
) -> None:
    harness = harnesses().serve()
    peer, plain = opened(harness)
    harness.tunnel.swap(generation(2, bundles=BundleSet({HOME: change(HOME_BUNDLE)})))
    harness.turn()
    assert is_alive(harness, peer, plain)
    assert harness.tunnel.counters.withdrawals == {}


# -- on-withdrawal


def test_kept_connections_are_judged_when_the_configuration_closes_them(harnesses: Harnesses) -> None:
    harness = harnesses(on_withdrawal=KEEP).serve(bundles=BOTH)
    kept, denied = opened(harness), opened(harness, who=GUEST)
    harness.tunnel.swap(generation(2))
    harness.turn()
    assert is_alive(harness, *kept)
    assert is_alive(harness, *denied)
    harness.tunnel.reconfigure(replace(harness.tunnel.config, on_withdrawal=ClosePolicy()))
    harness.turn()
    assert is_alive(harness, *kept)
    assert is_over(denied[1])


@pytest.mark.parametrize("where", ["rule", "authority"])
def test_a_denied_peer_is_cut_at_the_end_of_the_grace_period(harnesses: Harnesses, where: str) -> None:
    harness = harnesses(on_withdrawal=ClosePolicy(30)).serve()
    peer, plain = opened(harness)
    fields: dict[str, Any] = {"rules": ()} if where == "rule" else {"bundles": BundleSet({HOME: TrustBundle(HOME, ())})}
    harness.tunnel.swap(generation(2, **fields))
    harness.turn()
    harness.later(20)
    harness.tunnel.swap(generation(3, **fields))  # which begins no new period
    harness.turn()
    harness.later(9.9)
    assert is_alive(harness, peer, plain)
    harness.later(0.1)
    assert is_over(plain)


@pytest.mark.parametrize("where", ["rule", "authority"])
def test_an_admission_that_comes_back_within_the_grace_period_cancels_it(harnesses: Harnesses, where: str) -> None:
    harness = harnesses(on_withdrawal=ClosePolicy(30)).serve()
    peer, plain = opened(harness)
    fields: dict[str, Any] = {"rules": ()} if where == "rule" else {"bundles": BundleSet({HOME: TrustBundle(HOME, ())})}
    harness.tunnel.swap(generation(2, **fields))
    harness.turn()
    harness.later(20)
    harness.tunnel.swap(generation(3))
    harness.turn()
    harness.later(20)
    assert is_alive(harness, peer, plain)
    harness.tunnel.swap(generation(4, **fields))
    harness.turn()
    harness.later(29)
    assert is_alive(harness, peer, plain), "a new withdrawal has a new period"
    harness.later(1)
    assert is_over(plain)


def test_another_denial_does_not_undo_one_whose_cause_remains(harnesses: Harnesses) -> None:
    """The path was refused by generation 2, and generation 3 differs from it by a rule only."""
    harness = harnesses(on_withdrawal=ClosePolicy(30)).serve()
    _, plain = opened(harness)
    no_authority = BundleSet({HOME: TrustBundle(HOME, ())})
    harness.tunnel.swap(generation(2, bundles=no_authority))
    harness.turn()
    harness.tunnel.swap(generation(3, bundles=no_authority, rules=(IdRule(parse_spiffe_id("spiffe://a.test/peer")),)))
    harness.turn()
    harness.later(30)
    assert is_over(plain)


def test_each_denied_peer_has_a_period_of_its_own(harnesses: Harnesses) -> None:
    harness = harnesses(on_withdrawal=ClosePolicy(30)).serve(bundles=BOTH)
    (_, first), (_, second) = opened(harness, who=GUEST), opened(harness)
    harness.tunnel.swap(generation(2))
    harness.turn()
    harness.later(10)
    harness.tunnel.swap(generation(3, rules=()))
    harness.turn()
    harness.later(20)
    assert (is_over(first), is_over(second)) == (True, False)
    harness.later(10)
    assert is_over(second)


def test_a_shorter_grace_period_counts_from_the_reload(harnesses: Harnesses) -> None:
    harness = harnesses(on_withdrawal=ClosePolicy(60)).serve()
    peer, plain = opened(harness)
    harness.tunnel.swap(generation(2, rules=()))
    harness.turn()
    harness.later(10)
    harness.tunnel.reconfigure(replace(harness.tunnel.config, on_withdrawal=ClosePolicy(5)))
    harness.turn()
    harness.later(4)
    assert is_alive(harness, peer, plain)
    harness.later(1)
    assert is_over(plain)


def test_a_connection_that_ends_in_its_grace_period_is_forgotten(harnesses: Harnesses) -> None:
    harness = harnesses(on_withdrawal=ClosePolicy(30)).serve()
    peer, plain = opened(harness)
    harness.tunnel.swap(generation(2, rules=()))
    harness.turn()
    peer.end()
    plain.close()
    harness.turn()
    assert len(harness.tunnel) == 0
    assert harness.tunnel.withdrawal._due == {}
    harness.later(60)
    assert harness.tunnel.counters.withdrawals == {}


# -- expired certificates


def expired(harness: TunnelHarness) -> None:
    harness.wall = MORTAL_END.timestamp() + 1


@ROLES
def test_a_peer_whose_certificate_expires_is_cut_if_configured(harnesses: Harnesses, is_server: bool) -> None:
    harness = harnesses(is_server=is_server, closes_expired=True).serve(lasts=4e9)
    (peer, plain), lasting = opened(harness, who=MORTAL), opened(harness)
    harness.later(3600)
    assert is_alive(harness, peer, plain)
    expired(harness)  # the wall clock may jump
    harness.later(0.5)
    assert is_over(plain)
    assert is_alive(harness, *lasting)
    assert harness.tunnel.counters.withdrawals == {"expired": 1}
    line = next(line for line in harness.log.lines if line.startswith("closing"))
    assert line.startswith("closing connection: a certificate of the peer expired at 2090-01-01T00:00:00Z from=")


def test_a_peer_whose_certificate_expires_stays_by_default(harnesses: Harnesses) -> None:
    harness = harnesses().serve(lasts=4e9)
    peer, plain = opened(harness, who=MORTAL)
    expired(harness)
    harness.later(3600)
    assert is_alive(harness, peer, plain)


@pytest.mark.parametrize(("fields", "reason"), NOT_ADMITTED, ids=NOT_ADMITTED_IDS)
def test_an_expired_peer_is_cut_for_every_other_reason(harnesses: Harnesses, fields: dict[str, Any], reason: Denial) -> None:
    harness = harnesses().serve(lasts=4e9)
    peer, plain = opened(harness, who=MORTAL)
    expired(harness)
    harness.tunnel.swap(generation(2, lasts=4e9, bundles=BundleSet({HOME: reissued(HOME_BUNDLE)})))
    harness.turn()
    assert is_alive(harness, peer, plain)
    harness.tunnel.swap(generation(3, lasts=4e9, **fields))
    harness.turn()
    assert is_over(plain)
    assert harness.tunnel.counters.withdrawals == {reason.value: 1}


def test_expired_peers_are_cut_with_keep_too(harnesses: Harnesses) -> None:
    harness = harnesses(closes_expired=True, on_withdrawal=KEEP).serve(lasts=4e9)
    _, plain = opened(harness, who=MORTAL)
    expired(harness)
    harness.later(0.5)
    assert is_over(plain)


def test_a_reload_may_close_what_has_expired(harnesses: Harnesses) -> None:
    harness = harnesses().serve(lasts=4e9)
    _, plain = opened(harness, who=MORTAL)
    expired(harness)
    harness.tunnel.reconfigure(replace(harness.tunnel.config, closes_expired=True))
    harness.turn()
    assert is_over(plain)


def test_the_clock_is_looked_at_only_while_a_connection_can_expire(harnesses: Harnesses) -> None:
    harness = harnesses(closes_expired=True).serve()
    peer, plain = opened(harness, who=MORTAL)
    assert harness.tunnel.withdrawal._timer is not None
    peer.end()
    plain.close()
    harness.later(1)
    assert harness.tunnel.withdrawal._timer is None
    opened(harness, who=MORTAL)
    assert harness.tunnel.withdrawal._timer is not None


# -- our own identity


@pytest.mark.parametrize("how", ["withdrawn", "expired"])
@ROLES
def test_connections_are_cut_when_our_identity_is_lost_if_configured(harnesses: Harnesses, is_server: bool, how: str) -> None:
    harness = harnesses(is_server=is_server, closes_without_identity=True).serve()
    peer, plain = opened(harness)
    if how == "withdrawn":
        harness.tunnel.withdraw(60)
        harness.later(59)
        assert is_alive(harness, peer, plain)
        harness.later(1)
    else:
        harness.wall += 3601
        harness.later(0.5)
    harness.turn()
    assert is_over(plain)
    assert harness.tunnel.counters.withdrawals == {f"identity-{how}": 1}
    line = next(line for line in harness.log.lines if line.startswith("closing connection"))
    assert line.startswith(
        f"closing connection: identity spiffe://a.test/ours has {'been withdrawn' if how == 'withdrawn' else how}"
    )


def test_connections_stay_when_our_identity_is_withdrawn_by_default(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    peer, plain = opened(harness)
    harness.tunnel.withdraw(0)
    harness.tunnel.review()
    harness.turn()
    assert is_alive(harness, peer, plain)


def test_an_identity_that_is_confirmed_in_time_cuts_nothing(harnesses: Harnesses) -> None:
    harness = harnesses(closes_without_identity=True).serve()
    peer, plain = opened(harness)
    harness.tunnel.withdraw(60)
    harness.later(59)
    harness.tunnel.confirm()
    harness.later(60)
    assert is_alive(harness, peer, plain)


def test_a_relay_that_begins_after_the_identity_is_lost_is_over(harnesses: Harnesses) -> None:
    harness = harnesses(closes_without_identity=True).serve()
    peer = Peer(harness, harness.connect())
    peer.socket.sendall(peer.side.shake())
    harness.turn()
    harness.tunnel.withdraw(0)
    harness.tunnel.review()
    peer.socket.sendall(peer.side.shake(received(peer.socket)))
    harness.turn()
    assert harness.tunnel.counters.withdrawals == {"identity-withdrawn": 1}
    assert len(harness.tunnel) == 0


# -- policies


def until(harness: TunnelHarness, is_true: Callable[[], object]) -> None:
    for _ in range(600):  # a minute at most
        if is_true():
            return
        harness.loop.turn(0.1)
    pytest.fail("not within a minute")


class FakePolicy:
    """A policy whose answer the test decides."""

    def __init__(self) -> None:
        self.answer: bool | PeerDenied = True
        self.asked: list[str] = []
        self.bugs: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, peer: Any) -> bool:
        self.asked.append(str(peer))
        assert self.may_answer.wait(60)
        if str(peer) in self.bugs:
            raise ZeroDivisionError
        if isinstance(self.answer, PeerDenied):
            raise self.answer
        return self.answer

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (PolicyRule("data.x", self),)


def finish_handshake(harness: TunnelHarness, peer: Peer) -> None:
    """Answer the flight of a server, which computes it on a thread."""
    flights: list[bytes] = []
    until(harness, lambda: any(flights) or flights.append(received(peer.socket)))
    peer.socket.sendall(peer.side.shake(b"".join(flights)))


def opened_by(harness: TunnelHarness, who: Any = PEER) -> tuple[Peer, socket.socket]:
    peer, before = Peer(harness, harness.connect(), who=who), harness.tunnel.counters.relayed
    peer.socket.sendall(peer.side.shake())
    finish_handshake(harness, peer)
    until(harness, lambda: harness.tunnel.counters.relayed > before)
    harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None
    return peer, backend


@pytest.mark.parametrize("is_new_generation", [True, False], ids=["generation", "policy"])
def test_a_policy_that_denies_now_cuts_the_peer(harnesses: Harnesses, is_new_generation: bool) -> None:
    policy = FakePolicy()
    harness = harnesses().serve(rules=policy.rules)
    _, plain = opened_by(harness)
    policy.answer = False
    if is_new_generation:
        harness.tunnel.swap(generation(2, rules=policy.rules))
    else:
        harness.tunnel.judge_again()
    until(harness, lambda: len(harness.tunnel) == 0)
    assert is_over(plain)
    assert harness.tunnel.counters.withdrawals == {"no-matching-rule": 1}


def test_a_policy_is_evaluated_once_for_all_connections_of_a_certificate(harnesses: Harnesses) -> None:
    policy = FakePolicy()
    harness = harnesses().serve(rules=policy.rules)
    for who in (PEER, PEER, OTHER, PEER):
        opened_by(harness, who)
    policy.asked.clear()
    policy.answer = False
    harness.tunnel.judge_again()
    until(harness, lambda: len(harness.tunnel) == 0)
    assert sorted(policy.asked) == ["spiffe://a.test/other", "spiffe://a.test/peer"]


def test_a_verdict_of_an_earlier_review_is_ignored(harnesses: Harnesses) -> None:
    policy = FakePolicy()
    harness = harnesses().serve(rules=policy.rules)
    peer, plain = opened_by(harness)
    policy.asked.clear()
    policy.answer = False
    policy.may_answer.clear()
    harness.tunnel.judge_again()
    until(harness, lambda: policy.asked)
    harness.tunnel.swap(generation(2))
    policy.may_answer.set()
    until(harness, lambda: not harness.tunnel.withdrawal.is_running)
    assert is_alive(harness, peer, plain)


def test_a_policy_that_fails_cuts_only_if_it_fails_again(harnesses: Harnesses) -> None:
    policy = FakePolicy()
    harness = harnesses().serve(rules=policy.rules)
    peer, plain = opened_by(harness)
    policy.answer = PeerDenied(Denial.POLICY_ERROR, "all evaluators are busy")
    harness.tunnel.judge_again()
    until(harness, lambda: harness.tunnel.withdrawal._due)
    assert is_alive(harness, peer, plain)
    harness.clock.now += 5
    until(harness, lambda: len(harness.tunnel) == 0)
    assert is_over(plain)
    assert harness.tunnel.counters.withdrawals == {"policy-error": 1}


def test_with_a_policy_the_path_is_verified_too(harnesses: Harnesses) -> None:
    policy = FakePolicy()
    harness = harnesses().serve(rules=policy.rules)
    _, plain = opened_by(harness)
    harness.tunnel.swap(generation(2, rules=policy.rules, bundles=BundleSet({HOME: TrustBundle(HOME, ())})))
    until(harness, lambda: len(harness.tunnel) == 0)
    assert is_over(plain)
    assert harness.tunnel.counters.withdrawals == {"unknown-authority": 1}


def test_a_connection_that_ends_while_its_policy_is_evaluated_is_not_withdrawn(harnesses: Harnesses) -> None:
    policy = FakePolicy()
    harness = harnesses().serve(rules=policy.rules)
    peer, plain = opened_by(harness)
    policy.asked.clear()
    policy.answer = False
    policy.may_answer.clear()
    harness.tunnel.judge_again()
    until(harness, lambda: policy.asked)
    peer.end()
    plain.close()
    until(harness, lambda: len(harness.tunnel) == 0)
    policy.may_answer.set()
    until(harness, lambda: not harness.tunnel.withdrawal.is_running)
    assert harness.tunnel.counters.withdrawals == {}


def test_a_peer_whose_certificates_are_not_known_is_cut(harnesses: Harnesses) -> None:
    policy = FakePolicy()
    harness = harnesses().serve(rules=policy.rules)
    _, plain = opened_by(harness)
    (session,) = harness.tunnel.connections
    assert session.admitted is not None
    session.readmit_as(replace(session.admitted, sent=None))
    harness.tunnel.swap(generation(2, rules=policy.rules, bundles=BundleSet({HOME: reissued(HOME_BUNDLE)})))
    until(harness, lambda: len(harness.tunnel) == 0)
    assert is_over(plain)
    assert harness.tunnel.counters.withdrawals == {"no-certificate": 1}


def test_a_bug_in_a_policy_ends_the_connection_that_it_judges(harnesses: Harnesses) -> None:
    policy = FakePolicy()
    harness = harnesses().serve(rules=policy.rules)
    first, second = opened_by(harness), opened_by(harness, OTHER)
    policy.bugs = ["spiffe://a.test/peer"]
    harness.tunnel.judge_again()
    until(harness, lambda: not harness.tunnel.withdrawal.is_running)
    assert is_over(first[1])
    assert is_alive(harness, *second)
    assert harness.tunnel.counters.crashed == 1


def test_a_peer_that_the_policy_still_admits_stays(harnesses: Harnesses) -> None:
    policy = FakePolicy()
    harness = harnesses().serve(rules=policy.rules)
    peer, plain = opened_by(harness)
    policy.asked.clear()
    harness.tunnel.swap(generation(2, rules=policy.rules, bundles=BundleSet({HOME: reissued(HOME_BUNDLE)})))
    until(harness, lambda: not harness.tunnel.withdrawal.is_running)
    assert policy.asked == ["spiffe://a.test/peer"]
    assert is_alive(harness, peer, plain)


def test_a_policy_that_changes_before_the_relay_judges_the_peer_again(harnesses: Harnesses) -> None:
    policy = FakePolicy()
    harness = harnesses(target=NAMED).serve(rules=policy.rules)
    peer = Peer(harness, harness.connect())
    peer.socket.sendall(peer.side.shake())
    finish_handshake(harness, peer)
    until(harness, lambda: harness.asked)  # the name of the target is looked for
    policy.answer = False
    harness.tunnel.judge_again()
    ((_address, answer),) = harness.asked
    answer((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
    until(harness, lambda: len(harness.tunnel) == 0)
    assert (harness.tunnel.counters.relayed, harness.tunnel.counters.reasons) == (0, {"no-matching-rule": 1})


# -- slices


class SlowClock:
    """A clock by which every look takes three milliseconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.003
        return self.now


def test_a_long_review_lets_other_events_pass_in_between(harnesses: Harnesses) -> None:
    harness = harnesses().serve(bundles=BOTH)
    guests = [opened(harness, who=GUEST) for _ in range(12)]
    harness.loop.clock = SlowClock()
    harness.tunnel.swap(generation(2))
    counts = []
    while len(harness.tunnel):
        harness.turn(1)
        counts.append(len(harness.tunnel))
    steps = [before - after for before, after in zip([12, *counts], counts, strict=False) if before != after]
    assert len(steps) >= 4
    assert max(steps) <= 3
    assert all(is_over(plain) for _, plain in guests)


def test_a_generation_that_comes_during_a_review_judges_those_first_that_were_not_reached(harnesses: Harnesses) -> None:
    harness = harnesses().serve(bundles=BOTH)
    guests = [opened(harness, who=GUEST) for _ in range(6)]
    harness.loop.clock = SlowClock()
    for number in range(2, 200):
        harness.tunnel.swap(generation(number))
        harness.turn(1)
        if not len(harness.tunnel):
            break
    assert all(is_over(plain) for _, plain in guests)


def test_a_peer_of_a_generation_between_two_is_verified(harnesses: Harnesses) -> None:
    """Its authority was trusted only by the generation that came, and went, while a review was running."""
    middle = ANOTHER
    stranger = identity("spiffe://a.test/stranger", root=middle)
    harness = harnesses().serve()
    opened(harness)
    harness.tunnel.swap(
        generation(2, bundles=BundleSet({HOME: replace(HOME_BUNDLE, authorities=(ROOT.certificate, middle.certificate))}))
    )
    _, plain = opened(harness, who=stranger)
    harness.tunnel.withdrawal.review_all(harness.tunnel.generation)  # a review is running
    harness.tunnel.swap(generation(3))
    harness.turn()
    assert is_over(plain)
    assert len(harness.tunnel) == 1


def test_a_bug_in_the_judgement_of_one_connection_ends_it_only(harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = harnesses().serve()
    sessions = [opened(harness) for _ in range(3)]
    judged = generation(2, rules=(*ANYONE, IdRule(parse_spiffe_id("spiffe://a.test/x"))))
    assert judged.admission is not None
    check, calls = judged.admission.check_known, []

    def fail_once(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise ZeroDivisionError
        check(*arguments)

    monkeypatch.setattr(judged.admission, "check_known", fail_once)
    harness.tunnel.swap(judged)
    harness.turn()
    assert (len(calls), len(harness.tunnel), harness.tunnel.counters.crashed) == (3, 2, 1)
    assert sum(is_over(plain) for _, plain in sessions) == 1


def test_no_state_is_kept_for_an_admitted_connection(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    for _ in range(3):
        opened(harness)
    harness.tunnel.swap(generation(2, bundles=BundleSet({HOME: reissued(HOME_BUNDLE)})))
    harness.turn()
    withdrawal = harness.tunnel.withdrawal
    kept = withdrawal._quick, withdrawal._full, withdrawal._due, withdrawal._policies.is_running
    assert not any(kept)
    assert math.isinf(withdrawal._earliest)
