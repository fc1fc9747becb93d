"""What of a verified peer is checked again without its path, and when its path must be verified again."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network

import pytest

from tests.support.cert_factory import NOW, MadeCertificate, authority, key_of, leaf
from tests.support.revocation_lists import make_list
from tests.support.tls_ends import TLS12, TLS13, Side, admit_all, context, identity, shake_hands
from tests.support.tls_ends import admission as lasting_admission
from tunnel.authz.authorizer import Admitted, Authorizer
from tunnel.authz.peer import Peer
from tunnel.authz.pins import SpkiPin
from tunnel.authz.rules import AnyRule, IdRule, Rule, SourceRule
from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.certificate import read_serial_number
from tunnel.pkix.extensions import CLIENT_AUTH, SERVER_AUTH
from tunnel.pkix.revocation import RevocationLists
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.tls.admission import PeerAdmission
from tunnel.tls.verify import PinVerifier, PkiVerifier, SpiffeVerifier, Verifier, build_pki_anchors

HOME, PARTNER = TrustDomain("a.test"), TrustDomain("b.test")
ROOT, OTHER = authority(), authority(key=key_of("p256", 9))
PARTNER_ROOT = authority("b.test")
ID = parse_spiffe_id("spiffe://a.test/w")
PEER = Peer("", ID)
GUEST = Peer("", parse_spiffe_id("spiffe://b.test/w"))


def spiffe(*home: MadeCertificate, partner: MadeCertificate | None = None) -> SpiffeVerifier:
    bundles = {HOME: TrustBundle(HOME, tuple(one.certificate for one in home))} if home else {}
    if partner is not None:
        bundles[PARTNER] = TrustBundle(PARTNER, (partner.certificate,))
    return SpiffeVerifier(BundleSet(bundles))


def admission(verifier: Verifier, *rules: Rule) -> PeerAdmission:
    return PeerAdmission(verifier, Authorizer(rules or (AnyRule(),), HOME), NOW.timestamp)


def denial(judged: PeerAdmission, peer: Peer, source: str = "") -> Denial | None:
    try:
        judged.check_known(peer, source)
    except PeerDenied as denied:
        return denied.reason
    return None


def test_trust_domain_and_rules_are_checked_without_a_path() -> None:
    assert denial(admission(spiffe(ROOT)), PEER) is None
    assert denial(admission(spiffe(PARTNER_ROOT)), GUEST) is Denial.UNKNOWN_TRUST_DOMAIN
    assert denial(admission(spiffe(ROOT), IdRule(parse_spiffe_id("spiffe://a.test/x"))), PEER) is Denial.NO_RULE


def test_rules_about_the_source_are_applied_to_the_source_of_the_connection() -> None:
    judged = admission(spiffe(ROOT), SourceRule((ip_network("10.0.0.0/8"),)))
    assert denial(judged, PEER, "tcp:10.1.2.3:4") is None
    assert denial(judged, PEER, "tcp:192.0.2.1:4") is Denial.NO_RULE


def test_without_spiffe_only_the_rules_are_checked() -> None:
    verifier = PkiVerifier(build_pki_anchors([ROOT.certificate]), CLIENT_AUTH)
    judged = PeerAdmission(verifier, Authorizer((AnyRule(),), None), NOW.timestamp)
    assert denial(judged, Peer("")) is None


def pki(root: MadeCertificate, purpose: bytes = SERVER_AUTH) -> PkiVerifier:
    return PkiVerifier(build_pki_anchors([root.certificate]), purpose)


def by(root: MadeCertificate, peer: Peer = PEER) -> Admitted:
    return Admitted(peer, "any", anchor=root.certificate)


TRUSTED: list[tuple[Verifier, Admitted, bool]] = [
    (spiffe(ROOT), by(ROOT), True),
    (spiffe(ROOT, OTHER), by(ROOT), True),
    (spiffe(OTHER), by(ROOT), False),
    (spiffe(partner=PARTNER_ROOT), by(ROOT), False),
    (spiffe(ROOT), by(PARTNER_ROOT, GUEST), False),
    (spiffe(ROOT), by(ROOT, Peer("")), False),
    (spiffe(ROOT), Admitted(None, "any"), False),
    (spiffe(ROOT), Admitted(PEER, "any"), False),
    (pki(ROOT), by(ROOT, Peer("")), True),
    (pki(OTHER), by(ROOT, Peer("")), False),
    (PinVerifier(()), Admitted(Peer(""), "spki-pin"), True),
]


@pytest.mark.parametrize(("verifier", "admitted", "is_trusted"), TRUSTED)
def test_the_anchor_of_an_earlier_path_is_trusted_or_not(verifier: Verifier, admitted: Admitted, is_trusted: bool) -> None:
    assert admission(verifier).trusts(admitted) == is_trusted


CHECKS: list[tuple[Verifier, Verifier, bool]] = [
    (spiffe(ROOT), spiffe(OTHER), True),
    (pki(ROOT), pki(OTHER), True),
    (pki(ROOT), pki(ROOT, CLIENT_AUTH), False),
    (pki(ROOT), PkiVerifier(build_pki_anchors([ROOT.certificate]), SERVER_AUTH, "x.test"), False),
    (pki(ROOT), spiffe(ROOT), False),
    (spiffe(ROOT), PinVerifier(()), False),
    (spiffe(ROOT), SpiffeVerifier(BundleSet({}), RevocationLists(is_complete=True)), False),
    (
        pki(ROOT),
        PkiVerifier(build_pki_anchors([ROOT.certificate]), SERVER_AUTH, revocation=RevocationLists(is_complete=True)),
        False,
    ),
    (PinVerifier(()), PinVerifier(()), True),
    (PinVerifier(()), PinVerifier((SpkiPin("sha256", bytes(32)),)), False),
]


@pytest.mark.parametrize(("one", "other", "is_alike"), CHECKS)
def test_two_verifiers_make_the_same_checks_or_not(one: Verifier, other: Verifier, is_alike: bool) -> None:
    assert admission(one).checks_like(admission(other)) == is_alike
    assert (same := admission(one)).checks_like(same)


def test_an_admission_keeps_the_anchor_of_its_path() -> None:
    worker = leaf(issuer=ROOT)
    rules = SourceRule((ip_network("10.0.0.0/8"),)), AnyRule()
    for verifier, own in ((spiffe(ROOT), HOME), (pki(ROOT), None)):
        judged = PeerAdmission(verifier, Authorizer(rules, own), NOW.timestamp)
        for source in ("tcp:10.0.0.1:1", "tcp:192.0.2.1:1"):
            assert judged(b"digest", lambda: (worker.der,), source).anchor == ROOT.certificate


def test_dates_are_judged_at_the_given_time() -> None:
    worker = leaf(issuer=ROOT, end=NOW - timedelta(seconds=1))
    judged = admission(spiffe(ROOT))

    def decide(at: float | None) -> Admitted:
        return judged(b"digest", lambda: (worker.der,), at=at)

    with pytest.raises(PeerDenied) as denied:
        decide(None)
    assert denied.value.reason is Denial.EXPIRED
    assert decide(worker.certificate.not_after.timestamp()).peer is not None
    with pytest.raises(PeerDenied):
        decide(None)


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
@pytest.mark.parametrize("is_server", [True, False])
def test_an_admission_keeps_the_certificates_that_the_peer_sent(is_server: bool, version: int) -> None:
    who = identity("spiffe://a.test/w", middles=1)
    ours = Side(context(identity(), lasting_admission(who.root), is_server=is_server, version=version))
    peer = Side(context(who, admit_all, is_server=not is_server, version=version))
    client, server = (peer, ours) if is_server else (ours, peer)
    shake_hands(client, server)
    assert ours.end.admitted is not None
    assert ours.end.admitted.sent is not None
    assert ours.end.admitted.sent.chain == tuple(one.der for one in who.chain)


def test_a_serial_number_on_any_list_makes_a_peer_suspect() -> None:
    worker, other = leaf(issuer=ROOT), leaf(issuer=ROOT)
    lists = RevocationLists((make_list(OTHER, 1), make_list(ROOT, worker.certificate.serial_number)))
    anchors = build_pki_anchors([ROOT.certificate])
    for verifier in (SpiffeVerifier(BundleSet({}), lists), PkiVerifier(anchors, CLIENT_AUTH, revocation=lists)):
        judged = admission(verifier)
        assert judged.may_have_revoked(Peer("", leaf=worker.der))
        assert not judged.may_have_revoked(Peer("", leaf=other.der))
    for without_lists in (spiffe(ROOT), pki(ROOT), PinVerifier(())):
        assert not admission(without_lists).may_have_revoked(Peer("", leaf=worker.der))


def test_the_serial_number_of_a_certificate_can_be_read_alone() -> None:
    for made in (leaf(issuer=ROOT), ROOT):
        assert read_serial_number(made.der) == made.certificate.serial_number
