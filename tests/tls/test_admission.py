"""An admission is cached while the certificates of its path are valid; a refusal is not cached."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import pytest

from tests.support.cert_factory import NOW, MadeCertificate, authority, key_of, leaf, rewritten
from tunnel.authz.authorizer import Admitted, Authorizer
from tunnel.authz.rules import AnyRule, IdRule, PolicyRule, Rule
from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.tls.admission import _MOST_ENTRIES, PeerAdmission
from tunnel.tls.verify import SpiffeVerifier

SECOND = timedelta(seconds=1)
HOME = TrustDomain("a.test")
ANYONE = AnyRule()


class Bench:
    """An admission with a clock of the test."""

    def __init__(self, *anchors: MadeCertificate, rule: Rule = ANYONE) -> None:
        held = BundleSet({HOME: TrustBundle(HOME, tuple(anchor.certificate for anchor in anchors))})
        self.now = NOW
        self.paths_read = 0  # how many paths have been asked for
        self._admission = PeerAdmission(SpiffeVerifier(held), Authorizer((rule,), HOME), lambda: self.now.timestamp())

    def meet(self, *path: MadeCertificate) -> Admitted:
        def ask() -> tuple[bytes, ...]:
            self.paths_read += 1
            return tuple(one.der for one in path)

        return self._admission(hashlib.sha256(path[0].der).digest(), ask)

    def refusal(self, *path: MadeCertificate) -> Denial:
        with pytest.raises(PeerDenied) as refused:
            self.meet(*path)
        return refused.value.reason


def test_an_admission_carries_the_id_the_subject_and_the_rule() -> None:
    root = authority()
    admitted = Bench(root).meet(leaf(issuer=root, subject="db"))
    assert str(admitted.peer.spiffe_id) == "spiffe://a.test/w"
    assert admitted.peer.subject == "CN=db"
    assert admitted.rule == "any"


def test_a_cached_peer_is_not_verified_again() -> None:
    root = authority()
    bench, worker = Bench(root), leaf(issuer=root)
    first = bench.meet(worker)
    assert bench.meet(worker) is first
    assert bench.paths_read == 1


def test_a_policy_is_evaluated_for_each_handshake() -> None:
    root = authority()
    answers = [True, False]
    bench, worker = Bench(root, rule=PolicyRule("data.x", lambda _peer: answers.pop(0))), leaf(issuer=root)
    assert bench.meet(worker).rule == "policy:data.x"
    assert bench.refusal(worker) is Denial.NO_RULE


def test_another_leaf_is_verified_separately() -> None:
    root = authority()
    bench = Bench(root)
    bench.meet(leaf(issuer=root))
    bench.meet(leaf(issuer=root))
    assert bench.paths_read == 2


@pytest.mark.parametrize("place", ["leaf", "intermediate", "anchor"])
@pytest.mark.parametrize(
    ("dates", "outside", "reason"),
    [
        ({"end": NOW + SECOND}, NOW + 2 * SECOND, Denial.EXPIRED),
        ({"start": NOW - SECOND}, NOW - 2 * SECOND, Denial.NOT_YET_VALID),
    ],
    ids=["end", "start"],
)
def test_an_admission_is_cached_within_the_validity_of_every_certificate(
    place: str, dates: dict[str, datetime], outside: datetime, reason: Denial
) -> None:
    root = authority(**(dates if place == "anchor" else {}))
    middle = authority(issuer=root, subject="middle", **(dates if place == "intermediate" else {}))
    path = leaf(issuer=middle, **(dates if place == "leaf" else {})), middle
    bench = Bench(root)
    admitted = bench.meet(*path)
    bench.now = next(iter(dates.values()))
    assert bench.meet(*path) is admitted, "both ends are within"
    bench.now = outside
    assert bench.refusal(*path) is reason
    bench.now = NOW
    assert bench.meet(*path) == admitted, "a clock that was set back finds it good again"


def test_an_expired_path_is_admitted_again_with_a_renewed_intermediate() -> None:
    root = authority()
    old = authority(issuer=root, subject="middle", key=key_of("p256"), end=NOW)
    new = authority(issuer=root, subject="middle", key=key_of("p256"))
    worker = leaf(issuer=old)
    bench = Bench(root)
    bench.meet(worker, old)
    bench.now = NOW + SECOND
    assert bench.refusal(worker, old) is Denial.EXPIRED
    admitted = bench.meet(worker, new)
    assert bench.meet(worker, new) is admitted


@pytest.mark.parametrize("reason", [Denial.UNKNOWN_AUTHORITY, Denial.NO_RULE])
def test_refusals_are_not_cached(reason: Denial) -> None:
    root = authority()
    stranger = leaf(issuer=authority() if reason is Denial.UNKNOWN_AUTHORITY else root)
    bench = Bench(root, rule=IdRule(parse_spiffe_id("spiffe://a.test/other")))
    for count in (1, 2, 3):
        assert bench.refusal(stranger) is reason
        assert bench.paths_read == count


def test_authentication_comes_before_authorization() -> None:
    """A forged ID that a rule names is refused for the forgery, one that is proven for the rule."""
    root = authority()
    bench = Bench(root, rule=IdRule(parse_spiffe_id("spiffe://a.test/w")))
    assert bench.refusal(leaf("spiffe://a.test/w", issuer=authority())) is Denial.UNKNOWN_AUTHORITY
    assert bench.refusal(leaf("spiffe://a.test/v", issuer=root)) is Denial.NO_RULE
    assert bench.meet(leaf("spiffe://a.test/w", issuer=root)).rule == "id:spiffe://a.test/w"


def test_bytes_that_are_no_certificate_are_unreadable() -> None:
    admission = PeerAdmission(SpiffeVerifier(BundleSet({})), Authorizer((ANYONE,), HOME), NOW.timestamp)
    with pytest.raises(PeerDenied) as refused:
        admission(b"digest", lambda: (b"\x30\x00",))
    assert refused.value.reason is Denial.UNREADABLE


def test_a_peer_without_a_certificate_is_refused() -> None:
    admission = PeerAdmission(SpiffeVerifier(BundleSet({})), Authorizer((ANYONE,), HOME), NOW.timestamp)
    with pytest.raises(PeerDenied):
        admission(b"digest", lambda: ())


def test_the_cache_is_bounded_and_drops_the_oldest_entry() -> None:
    root = authority()
    first, second, last = (leaf(issuer=root).der for _ in range(3))
    admission = PeerAdmission(
        SpiffeVerifier(BundleSet({HOME: TrustBundle(HOME, (root.certificate,))})), Authorizer((ANYONE,), HOME), NOW.timestamp
    )
    paths_read: list[bytes] = []

    def meet(digest: bytes, der: bytes) -> None:
        def ask() -> tuple[bytes, ...]:
            paths_read.append(digest)
            return (der,)

        admission(digest, ask)

    meet(b"first", first)
    meet(b"second", second)
    for number in range(_MOST_ENTRIES - 2):
        meet(b"%d" % number, last)
    paths_read.clear()
    meet(b"first", first)
    meet(b"second", second)
    assert paths_read == [], "so many are remembered"
    meet(b"one more", last)
    meet(b"second", second)
    meet(b"first", first)
    assert paths_read == [b"one more", b"first"], "one more, and the oldest is not"


def test_the_cache_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    root = authority()
    bench = Bench(root)
    small, large = leaf(issuer=root), leaf(issuer=root, dns_names=[f"{number}.{'x' * 60}.test" for number in range(500)])
    bench.meet(small)
    bench.meet(large)
    assert bench.meet(small) is bench.meet(small)
    seen = bench.paths_read
    monkeypatch.setattr("tunnel.tls.admission._MOST_BYTES", 3 * len(large.der) + 54096)
    bench.meet(leaf(issuer=root))
    bench.meet(small)
    assert bench.paths_read == seen + 2, "the oldest are forgotten"
    assert bench._admission._bytes <= 3 * len(large.der) + 54096
    for _ in range(3):
        bench.meet(large)


ODD_NAME = b"\x0c\x08odd name"  # a UTF8String


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        (ODD_NAME, "CN=odd name"),
        (b"\x0c\x08odd\n\x1b[0m", "CN=odd\n\x1b[0m"),  # escaped where it is shown
        (b"\x16\x08odd n\xe4me", "CN=#16086f6464206ee46d65"),  # an IA5String beyond ASCII
        (b"\x14\x08odd n\xe4me", "CN=odd n\xe4me"),  # a TeletexString in Latin-1, as old authorities wrote them
        (b"\x03\x08\x00dd name", "CN=#0308006464206e616d65"),  # a BIT STRING
        (b"\x30\x08odd name", "CN=#30086f6464206e616d65"),
    ],
)
def test_under_spiffe_the_subject_is_ignored(changed: bytes, shown: str) -> None:
    signer = key_of("ed25519")
    root = authority(key=signer)
    worker = rewritten(leaf(issuer=root, subject="odd name"), ODD_NAME, changed, signer)
    assert Bench(root).meet(worker).peer.subject == shown
