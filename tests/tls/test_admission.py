"""An admission is cached while the certificates of its path are valid; a refusal is not cached."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from ipaddress import ip_network

import pytest

from tests.support.cert_factory import NOW, MadeCertificate, authority, key_of, leaf, rewritten
from tunnel.authz.authorizer import Admitted, Authorizer
from tunnel.authz.pins import SpkiPin
from tunnel.authz.rules import AnyRule, DenyRule, IdRule, PolicyRule, Rule, SourceRule
from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.extensions import CLIENT_AUTH, SERVER_AUTH
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.tls.admission import _MOST_ENTRIES, PeerAdmission
from tunnel.tls.verify import PinVerifier, PkiVerifier, SpiffeVerifier, build_pki_anchors

SECOND = timedelta(seconds=1)
HOME = TrustDomain("a.test")
ANYONE = AnyRule()


class Bench:
    """An admission with a clock of the test."""

    def __init__(self, *anchors: MadeCertificate, rule: Rule = ANYONE, rules: tuple[Rule, ...] = ()) -> None:
        held = BundleSet({HOME: TrustBundle(HOME, tuple(anchor.certificate for anchor in anchors))})
        self.now = NOW
        self.paths_read = 0  # how many paths have been asked for
        authorizer = Authorizer(rules or (rule,), HOME)
        self._admission = PeerAdmission(SpiffeVerifier(held), authorizer, lambda: self.now.timestamp())

    def meet(self, *path: MadeCertificate, source: str = "") -> Admitted:
        def ask() -> tuple[bytes, ...]:
            self.paths_read += 1
            return tuple(one.der for one in path)

        return self._admission(hashlib.sha256(path[0].der).digest(), ask, source)

    def refusal(self, *path: MadeCertificate, source: str = "") -> Denial:
        with pytest.raises(PeerDenied) as refused:
            self.meet(*path, source=source)
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


NETWORK = SourceRule((ip_network("10.0.0.0/8"),))
INSIDE, OUTSIDE = "tcp:10.1.2.3:4", "tcp:[::ffff:192.0.2.1]:4"


def test_with_a_source_rule_each_connection_is_decided_and_the_verification_is_cached() -> None:
    root = authority()
    bench, worker = Bench(root, rules=(DenyRule(NETWORK), ANYONE)), leaf(issuer=root)
    first = bench.meet(worker, source=OUTSIDE)
    assert bench.refusal(worker, source=INSIDE) is Denial.DENY_RULE
    assert bench.refusal(worker, source="unix:@") is Denial.DENY_RULE
    assert bench.meet(worker, source="tcp:192.0.2.9:1") is first, "connections share one admission"
    assert bench.paths_read == 1


def test_a_refusal_by_source_names_the_peer() -> None:
    root = authority()
    bench, worker = Bench(root, rule=NETWORK), leaf(issuer=root)
    bench.meet(worker, source=INSIDE)
    with pytest.raises(PeerDenied) as refused:
        bench.meet(worker, source=OUTSIDE)
    assert str(refused.value.peer) == "spiffe://a.test/w"


def test_a_connection_that_another_rule_admits_has_its_own_admission() -> None:
    root = authority()
    bench, worker = Bench(root, rules=(NETWORK, ANYONE)), leaf(issuer=root)
    rules = [bench.meet(worker, source=source).rule for source in (INSIDE, OUTSIDE, INSIDE, "")]
    assert rules == ["source:10.0.0.0/8", "any", "source:10.0.0.0/8", "any"]
    assert bench.paths_read == 1


def test_an_admission_by_a_policy_after_a_source_rule_is_decided_each_time() -> None:
    root = authority()
    answers = [True, False, True]
    bench = Bench(root, rules=(NETWORK, PolicyRule("data.x", lambda _peer: answers.pop(0))))
    worker = leaf(issuer=root)
    assert bench.meet(worker, source=OUTSIDE).rule == "policy:data.x"
    assert bench.refusal(worker, source=OUTSIDE) is Denial.NO_RULE
    assert bench.meet(worker, source=INSIDE).rule == "source:10.0.0.0/8"
    assert bench.meet(worker, source=OUTSIDE).rule == "policy:data.x"


def test_an_admission_ends_with_the_first_certificate_of_the_path() -> None:
    root = authority()
    soon = NOW + SECOND
    for path in (
        (leaf(issuer=root, end=soon),),
        (leaf(issuer=(middle := authority(issuer=root, subject="middle", end=soon))), middle),
    ):
        bench = Bench(root)
        assert bench.meet(*path).expires == soon.timestamp()
        assert bench.meet(*path).expires == soon.timestamp(), "from the cache too"


def test_an_admission_by_ordinary_rules_expires_too() -> None:
    root = authority()
    verifier = PkiVerifier(build_pki_anchors((root.certificate,)), CLIENT_AUTH)
    worker = leaf(issuer=root, end=NOW + SECOND)
    admission = PeerAdmission(verifier, Authorizer((ANYONE,), None), NOW.timestamp)
    assert admission(b"digest", lambda: (worker.der,)).expires == (NOW + SECOND).timestamp()


def test_an_admission_by_a_pin_does_not_expire() -> None:
    worker = leaf(issuer=authority())
    pin = SpkiPin("sha256", hashlib.sha256(worker.certificate.key_info).digest())
    admission = PeerAdmission(PinVerifier((pin,)), Authorizer((ANYONE,), None), NOW.timestamp)
    assert admission(b"digest", lambda: (worker.der,)).expires is None


BY_ID = IdRule(parse_spiffe_id("spiffe://a.test/w"))


def spiffe_admission(
    *anchors: MadeCertificate,
    rules: tuple[Rule, ...] = (BY_ID,),
    own: str = "a.test",
    accepted: tuple[TrustDomain, ...] | None = None,
) -> PeerAdmission:
    held = BundleSet({HOME: TrustBundle(HOME, tuple(anchor.certificate for anchor in anchors))})
    return PeerAdmission(SpiffeVerifier(held), Authorizer(rules, TrustDomain(own), accepted), NOW.timestamp)


def pki_admission(anchor: MadeCertificate, purpose: bytes = SERVER_AUTH, host: str = "db.test") -> PeerAdmission:
    verifier = PkiVerifier(build_pki_anchors((anchor.certificate,)), purpose, host)
    return PeerAdmission(verifier, Authorizer((BY_ID,), None), NOW.timestamp)


def test_admissions_with_the_same_bundles_and_rules_are_equivalent() -> None:
    root, other = authority(), authority()
    worker = leaf(issuer=root)
    used = spiffe_admission(root)
    used(b"digest", lambda: (worker.der,))
    assert used.is_equivalent(spiffe_admission(root))
    for different in (
        spiffe_admission(other),
        spiffe_admission(root, other),
        spiffe_admission(root, rules=(DenyRule(BY_ID),)),
        spiffe_admission(root, own="b.test"),
        spiffe_admission(root, accepted=(HOME,)),
        pki_admission(root),
    ):
        assert not used.is_equivalent(different)


def test_admissions_by_ordinary_rules_are_equivalent_with_equal_anchors_purpose_and_host() -> None:
    root = authority()
    assert pki_admission(root).is_equivalent(pki_admission(root))
    for different in (pki_admission(authority()), pki_admission(root, CLIENT_AUTH), pki_admission(root, host="x.test")):
        assert not pki_admission(root).is_equivalent(different)


def test_admissions_with_a_policy_are_never_equivalent() -> None:
    rules: tuple[Rule, ...] = (PolicyRule("data.x", bool),)
    root = authority()
    assert not spiffe_admission(root, rules=rules).is_equivalent(spiffe_admission(root, rules=rules))


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
