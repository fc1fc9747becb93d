"""Verification of an SVID against the bundle of its own trust domain, at a given time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support import spire_captures
from tests.support.cert_factory import (
    CLIENT_ONLY,
    END,
    NOW,
    START,
    MadeCertificate,
    authority,
    key_of,
    leaf,
    rewritten,
    signed_over,
)
from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.certificate import Certificate, parse_certificates
from tunnel.pkix.names import Name
from tunnel.pkix.path import refuse_certificate
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id, parse_trust_domain
from tunnel.spiffe.messages import X509SvidResponse, parse_x509_svid_response
from tunnel.tls.verify import SpiffeVerifier, Verified

SECOND = timedelta(seconds=1)
CODE_SIGNING = (ExtendedKeyUsageOID.CODE_SIGNING,)
A, B = TrustDomain("a.test"), TrustDomain("b.test")
Path = list[Certificate]


def bundles(**domains: Iterable[MadeCertificate]) -> BundleSet:
    """Bundles by the first label of their trust domains: `a` is `a.test`."""
    made = {TrustDomain(f"{label}.test"): tuple(one.certificate for one in anchors) for label, anchors in domains.items()}
    return BundleSet({domain: TrustBundle(domain, authorities) for domain, authorities in made.items()})


def path_of(*made: MadeCertificate) -> Path:
    return [one.certificate for one in made]


def verify(held: BundleSet, *made: MadeCertificate, now: datetime = NOW) -> Verified:
    return SpiffeVerifier(held).verify(path_of(*made), now)


def refusal(held: BundleSet, *made: MadeCertificate, now: datetime = NOW) -> PeerDenied:
    with pytest.raises(PeerDenied) as refused:
        verify(held, *made, now=now)
    return refused.value


def denial(held: BundleSet, *made: MadeCertificate, now: datetime = NOW) -> Denial:
    return refusal(held, *made, now=now).reason


def response(scene: str) -> X509SvidResponse:
    return parse_x509_svid_response(spire_captures.message(f"{scene}/svid/00"))


def captured_path(scene: str) -> Path:
    return list(parse_certificates(response(scene).svids[0].x509_svid))


def captured_bundles(scene: str) -> BundleSet:
    """What one agent sent: the own bundle and the federated ones."""
    message = response(scene)
    own = parse_spiffe_id(message.svids[0].spiffe_id).trust_domain
    blobs = {own: message.svids[0].bundle} | {parse_trust_domain(k): v for k, v in message.federated_bundles.items()}
    return BundleSet({domain: TrustBundle(domain, parse_certificates(blob)) for domain, blob in blobs.items()})


# -- the right bundle


def test_a_leaf_under_its_own_bundle_proves_its_id() -> None:
    root = authority(start=START - SECOND, end=END - SECOND)
    worker = leaf(issuer=root)
    verified = verify(bundles(a=[root]), worker)
    expires = END - SECOND
    assert verified == Verified(worker.certificate, START, expires, parse_spiffe_id("spiffe://a.test/w"), expires)


def test_a_chain_under_its_own_bundle_proves_its_id_for_the_span_that_all_share() -> None:
    root = authority(start=START - SECOND)
    middle = authority(issuer=root, subject="middle", end=END - 2 * SECOND)
    worker = leaf(issuer=middle, start=START + SECOND)
    verified = verify(bundles(a=[root]), worker, middle)
    assert (verified.not_before, verified.not_after) == (START + SECOND, END - 2 * SECOND)


def test_bundles_are_never_pooled() -> None:
    """The authority of B signs an ID of A while both bundles are at hand."""
    ours, theirs = authority("a.test"), authority("b.test")
    held = bundles(a=[ours], b=[theirs])
    assert denial(held, leaf("spiffe://a.test/w", issuer=theirs)) is Denial.UNKNOWN_AUTHORITY
    assert denial(held, leaf("spiffe://b.test/w", issuer=ours)) is Denial.UNKNOWN_AUTHORITY
    assert denial(held, leaf("spiffe://a.test/w", issuer=theirs), theirs) is Denial.UNKNOWN_AUTHORITY
    assert verify(held, leaf("spiffe://b.test/w", issuer=theirs)).spiffe_id.trust_domain == B


def test_bundles_are_not_pooled_over_time_either() -> None:
    """A verifier that has judged both trust domains still keeps them apart."""
    ours, theirs = authority("a.test"), authority("b.test")
    verifier = SpiffeVerifier(bundles(a=[ours], b=[theirs]))
    for _ in range(3):
        assert verifier.verify(path_of(leaf(issuer=ours)), NOW).spiffe_id.trust_domain == A
        assert verifier.verify(path_of(leaf("spiffe://b.test/w", issuer=theirs)), NOW).spiffe_id.trust_domain == B
        with pytest.raises(PeerDenied):
            verifier.verify(path_of(leaf(issuer=theirs)), NOW)


def test_an_unnamed_authority_of_one_domain_signs_for_no_other() -> None:
    """Roots without an ID of their own say nothing of whose they are: only the bundle does."""
    ours, theirs = authority(uris=(), subject="root"), authority(uris=(), subject="root")
    assert denial(bundles(a=[ours], b=[theirs]), leaf(issuer=theirs)) is not None
    assert verify(bundles(a=[ours], b=[theirs]), leaf("spiffe://b.test/w", issuer=theirs)).spiffe_id.trust_domain == B


def test_an_intermediate_of_another_trust_domain_does_not_sign_for_ours() -> None:
    """One root vouches for two domains; the intermediate is named for the other one."""
    root = authority(uris=(), subject="shared root")
    theirs = authority("b.test", issuer=root)
    assert denial(bundles(a=[root], b=[root]), leaf(issuer=theirs), theirs) is Denial.TRUST_DOMAIN


def test_a_trust_domain_without_a_bundle_is_unknown() -> None:
    assert denial(bundles(b=[authority("b.test")]), leaf(issuer=authority())) is Denial.UNKNOWN_TRUST_DOMAIN
    assert denial(BundleSet({}), leaf(issuer=authority())) is Denial.UNKNOWN_TRUST_DOMAIN


def test_a_disabled_bundle_trusts_no_peer_and_gives_the_reason() -> None:
    held = BundleSet({}, {A: "the bundle of a.test: not a certificate"})
    with pytest.raises(PeerDenied, match="not a certificate") as refused:
        verify(held, leaf(issuer=authority()))
    assert refused.value.reason is Denial.UNKNOWN_TRUST_DOMAIN


def test_an_empty_bundle_trusts_no_peer() -> None:
    root = authority()
    assert denial(bundles(a=[]), leaf(issuer=root)) is Denial.UNKNOWN_AUTHORITY
    assert denial(bundles(a=[]), leaf(issuer=root), root) is Denial.UNKNOWN_AUTHORITY


# -- captured paths


@pytest.mark.parametrize("scene", ["one", "two-hints", "federated", "peer", "rsa", "p384", "same-subject-left"])
def test_captured_svids_verify_under_the_bundle_they_came_with(scene: str) -> None:
    verified = SpiffeVerifier(captured_bundles(scene)).verify(captured_path(scene), spire_captures.DAY)
    assert str(verified.spiffe_id) == response(scene).svids[0].spiffe_id


@pytest.mark.parametrize(
    ("own", "other"), [("same-subject-left", "same-subject-right"), ("same-subject-right", "same-subject-left")]
)
def test_roots_of_one_subject_verify_their_own_only(own: str, other: str) -> None:
    name, both = own.removeprefix("same-subject-"), {**captured_bundles(own).bundles, **captured_bundles(other).bundles}
    verified = SpiffeVerifier(BundleSet(both)).verify(captured_path(own), spire_captures.DAY)
    assert str(verified.spiffe_id) == f"spiffe://{name}.test/w"
    domain, foreign = verified.spiffe_id.trust_domain, parse_spiffe_id(response(other).svids[0].spiffe_id).trust_domain
    swapped = BundleSet({domain: TrustBundle(domain, both[foreign].authorities)})
    with pytest.raises(PeerDenied):
        SpiffeVerifier(swapped).verify(captured_path(own), spire_captures.DAY)


def test_a_captured_pair_of_federated_workloads_verifies_each_other() -> None:
    for me, other in (("federated", "peer"), ("peer", "federated")):
        verified = SpiffeVerifier(captured_bundles(me)).verify(captured_path(other), spire_captures.DAY)
        assert str(verified.spiffe_id) == response(other).svids[0].spiffe_id
    with pytest.raises(PeerDenied) as refused:
        SpiffeVerifier(captured_bundles("one")).verify(captured_path("peer"), spire_captures.DAY)
    assert refused.value.reason is Denial.UNKNOWN_TRUST_DOMAIN


# -- anchors


def test_an_anchor_need_not_be_self_signed() -> None:
    root = authority(uris=(), subject="root")
    middle = authority(issuer=root, subject="middle")
    assert verify(bundles(a=[middle]), leaf(issuer=middle)).not_after == END


def test_an_anchor_that_the_peer_also_sends_counts_once() -> None:
    root = authority()
    assert verify(bundles(a=[root]), leaf(issuer=root), root).not_after == END


def test_a_path_without_its_intermediate_is_refused() -> None:
    root = authority()
    middle = authority(issuer=root, subject="middle")
    assert denial(bundles(a=[root]), leaf(issuer=middle)) is Denial.UNKNOWN_AUTHORITY


def test_a_leaf_that_is_its_own_anchor_is_refused() -> None:
    worker = leaf(subject="worker")
    assert denial(bundles(a=[worker]), worker) is Denial.NOT_CA
    assert denial(bundles(a=[worker]), worker, worker) is Denial.NOT_CA
    unmarked = leaf(subject="worker", is_ca=None, usage=("digital_signature",))
    assert denial(bundles(a=[unmarked]), unmarked) is Denial.KEY_USAGE


def test_a_leaf_in_the_bundle_of_its_authority_is_not_an_anchor() -> None:
    root = authority()
    worker = leaf(issuer=root)
    assert denial(bundles(a=[worker]), worker) is Denial.UNKNOWN_AUTHORITY


def test_a_self_signed_leaf_is_refused() -> None:
    assert denial(bundles(a=[authority()]), leaf(subject="worker")) is Denial.UNKNOWN_AUTHORITY


def test_an_authority_of_the_right_name_and_another_key_is_refused() -> None:
    assert denial(bundles(a=[authority()]), leaf(issuer=authority())) in (Denial.UNKNOWN_AUTHORITY, Denial.BAD_PATH)


def test_of_several_authorities_each_signs_and_an_expired_one_does_no_harm() -> None:
    expired = authority(subject="old", end=NOW - SECOND)
    current, prepared = authority(subject="current"), authority(subject="next")
    held = bundles(a=[expired, current, prepared])
    assert verify(held, leaf(issuer=current)).not_after == END
    assert verify(held, leaf(issuer=prepared)).not_after == END
    assert denial(held, leaf(issuer=expired)) is Denial.EXPIRED


@pytest.mark.parametrize("place", [0, 14, 29])
def test_thirty_anchors_of_one_subject_are_distinguished(place: int) -> None:
    anchors = [authority(uris=(), subject="same") for _ in range(30)]
    assert verify(bundles(a=anchors), leaf(issuer=anchors[place])).not_after == END
    assert denial(bundles(a=anchors[:place] + anchors[place + 1 :]), leaf(issuer=anchors[place])) in (
        Denial.UNKNOWN_AUTHORITY,
        Denial.BAD_PATH,
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: authority(is_ca=False), Denial.NOT_CA),
        (lambda: authority(usage=("crl_sign",)), Denial.KEY_USAGE),
        (lambda: authority(key=key_of("rsa1024")), Denial.WEAK_KEY),
        (lambda: authority(key=key_of("k256")), Denial.WEAK_KEY),
    ],
    ids=["not an authority", "no keyCertSign", "RSA-1024", "secp256k1"],
)
def test_an_anchor_that_breaks_a_rule_is_not_used_and_is_reported(make: Callable[[], MadeCertificate], reason: Denial) -> None:
    root = make()
    serial = f"{root.certificate.serial_number:X}"
    seen = refusal(bundles(a=[authority(subject="another"), root]), leaf(issuer=root))
    assert seen.reason is reason
    assert f"authority 2 of the bundle (subject 'CN=authority of a.test', serial {serial}): rule " in str(seen)


CORPORATE: dict[str, dict[str, Any]] = {
    "no key usage": {"usage": None, "uris": ()},
    "key usage not critical": {"is_usage_critical": False, "uris": ()},
    "a URI that is no SPIFFE ID": {"uris": ("https://pki.example.com/root",)},
    "the ID of another trust domain": {"uris": ("spiffe://b.test",)},
    "an ID with a path": {"uris": ("spiffe://a.test/ca",)},
    "for one purpose": {"purposes": CLIENT_ONLY},
    "no extension at all": {"is_ca": None, "usage": None, "uris": (), "has_key_ids": False},
    "an unknown critical extension": {
        "extra": ((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True),)
    },
}


@pytest.mark.parametrize("fields", CORPORATE.values(), ids=CORPORATE)
@pytest.mark.parametrize("has_intermediate", [False, True])
def test_a_trust_anchor_is_a_name_and_a_key(fields: dict[str, Any], has_intermediate: bool) -> None:
    root = authority(subject="corporate root", **fields)
    path = [authority(issuer=root, subject="middle")] if has_intermediate else []
    assert verify(bundles(a=[root]), leaf(issuer=path[0] if path else root), *path).spiffe_id.trust_domain == A


INTERMEDIATES: dict[str, dict[str, Any]] = {
    "no key usage": {"usage": None},
    "key usage not critical": {"is_usage_critical": False},
    "a URI that is no SPIFFE ID": {"uris": ("https://pki.example.com/issuing",)},
    "an ID with a path": {"uris": ("spiffe://a.test/ca",)},
    "for servers only": {"purposes": (ExtendedKeyUsageOID.SERVER_AUTH,)},
}


@pytest.mark.parametrize("fields", INTERMEDIATES.values(), ids=INTERMEDIATES)
def test_a_path_through_an_ordinary_intermediate_is_accepted(fields: dict[str, Any]) -> None:
    root = authority(uris=(), usage=None, subject="corporate root")
    middle = authority(issuer=root, subject="middle", **fields)
    assert verify(bundles(a=[root]), leaf(issuer=middle), middle).spiffe_id.trust_domain == A


RENEWED: dict[str, dict[str, Any]] = {
    "no extension at all": {"is_ca": None, "usage": None, "uris": (), "has_key_ids": False},
    "not an authority": {"is_ca": False},
    "no keyCertSign": {"usage": ("digital_signature",)},
    "a path length that is too short": {"path_length": 0},
    "name constraints that exclude": {
        "extra": ((x509.NameConstraints([x509.UniformResourceIdentifier("other.test")], None), True),)
    },
    "expired": {"end": NOW - SECOND},
}


@pytest.mark.parametrize("fields", RENEWED.values(), ids=RENEWED)
def test_a_root_that_stands_twice_in_a_bundle_works_in_every_order(fields: dict[str, Any]) -> None:
    """A renewed root: same name and key, and only one of the two is good."""
    key = key_of("p384", 5)
    good = authority(subject="corporate root", uris=(), key=key)
    other = authority(**{"subject": "corporate root", "uris": (), "key": key, **fields})
    middle = authority(issuer=good, subject="middle")
    for anchors in permutations([good, other, authority(subject="unrelated")]):
        assert verify(bundles(a=anchors), leaf(issuer=middle), middle).not_after == END
        if "path_length" in fields:
            assert verify(bundles(a=anchors), leaf(issuer=good)).not_after == END
    assert fields.keys() & {"usage", "path_length"} or denial(bundles(a=[other]), leaf(issuer=middle), middle)


def test_a_root_renewed_with_its_old_key_verifies_what_names_the_old_certificate() -> None:
    """The intermediate names its issuer by serial number (RFC 5280, 4.2.1.1), which is that of the old certificate."""
    key = key_of("p384", 5)
    old, new = (authority(subject="corporate root", uris=(), key=key) for _ in range(2))
    subject = x509.DirectoryName(old.built.subject)
    by_serial = x509.AuthorityKeyIdentifier(None, [subject], old.certificate.serial_number)
    middle = authority(issuer=old, subject="middle", has_key_ids=False, extra=((by_serial, False),))
    assert verify(bundles(a=[old]), leaf(issuer=middle), middle).not_after == END
    assert verify(bundles(a=[new]), leaf(issuer=middle), middle).not_after == END
    stranger = authority(subject="corporate root", uris=())
    assert denial(bundles(a=[stranger]), leaf(issuer=middle), middle) is Denial.UNKNOWN_AUTHORITY


def test_a_root_renewed_with_its_old_key_and_another_key_identifier_verifies_what_names_the_old_one() -> None:
    key = key_of("p384", 5)
    old = authority(subject="corporate root", uris=(), key=key)
    other_id = x509.SubjectKeyIdentifier(b"made by another tool")
    new = authority(subject="corporate root", uris=(), key=key, has_key_ids=False, extra=((other_id, False),))
    middle = authority(issuer=old, subject="middle")
    assert verify(bundles(a=[new]), leaf(issuer=middle), middle).not_after == END
    assert verify(bundles(a=[new]), leaf(issuer=old)).not_after == END


def test_a_refused_anchor_is_not_reported_for_an_unrelated_issuer() -> None:
    bad, good, stranger = (authority(subject="root", is_ca=is_ca) for is_ca in (False, True, True))
    assert denial(bundles(a=[bad, good]), leaf(issuer=stranger)) is Denial.UNKNOWN_AUTHORITY
    assert denial(bundles(a=[bad]), leaf(issuer=stranger)) is Denial.NOT_CA


def test_a_chain_with_names_that_cannot_be_read_is_refused() -> None:
    signer = key_of("ed25519")
    root = authority(key=signer, subject="NAME")
    for odd in (b"\x03\x04\x00abc", b"\x14\x04n\xe9me", b"\x1b\x04name"):
        worker = rewritten(leaf(issuer=root), b"\x0c\x04NAME", odd, signer)
        assert denial(bundles(a=[root]), worker) in (Denial.UNKNOWN_AUTHORITY, Denial.UNREADABLE)
        assert denial(bundles(a=[rewritten(root, b"\x0c\x04NAME", odd, signer)]), leaf(issuer=root)) is not None


def test_a_refusal_is_short_whatever_a_certificate_says() -> None:
    name = Name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "r" * 64)] * 500).public_bytes())
    odd = SimpleNamespace(subject=name, issuer=name, serial_number=1 << 400_000)
    assert len(str(refuse_certificate(Denial.UNKNOWN_AUTHORITY, 3, odd, "seen"))) < 1000


def test_what_is_wrong_with_a_path_names_the_certificate_and_the_rule() -> None:
    root = authority()
    middle = authority(issuer=root, subject="middle", usage=("digital_signature",))
    serial = f"{middle.certificate.serial_number:X}"
    assert str(refusal(bundles(a=[root]), leaf(issuer=middle), middle)) == (
        f"bad-key-usage: certificate 2 of the path (subject 'CN=middle', serial {serial}): "
        "rule signs-certificates: its key usage lacks keyCertSign"
    )
    worker = leaf(issuer=root, usage=("key_agreement",), subject="worker")
    serial = f"{worker.certificate.serial_number:X}"
    assert str(refusal(bundles(a=[root]), worker)).startswith(
        f"bad-key-usage: certificate 1 of the path (subject 'CN=worker', serial {serial}): rule digital-signature: "
    )
    late = authority(end=NOW - SECOND)
    assert "certificate 2 of the path (subject 'CN=authority of a.test'" in str(refusal(bundles(a=[late]), leaf(issuer=late)))


def test_an_anchor_that_openssl_cannot_parse_is_rejected() -> None:
    signer = key_of("ed25519")
    root = authority(key=signer)
    broken = rewritten(root, b"authority of", b"authority\xff\xfef", signer)
    assert denial(bundles(a=[broken]), leaf(issuer=root)) is Denial.UNKNOWN_AUTHORITY
    assert verify(bundles(a=[broken, root]), leaf(issuer=root)).not_after == END


# -- the path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: authority(issuer=root, subject="middle", is_ca=False), Denial.NOT_CA),
        (lambda root: authority(issuer=root, subject="middle", usage=("digital_signature",)), Denial.KEY_USAGE),
        (lambda root: authority("b.test", issuer=root), Denial.TRUST_DOMAIN),
        (lambda root: authority(issuer=root, subject="m", is_ca=None), Denial.NOT_CA),
        (lambda root: authority(issuer=root, subject="m", purposes=CODE_SIGNING), Denial.EXTENDED_KEY_USAGE),
        (lambda root: authority(issuer=root, subject="m", key=key_of("rsa1024")), Denial.WEAK_KEY),
        (lambda root: leaf("spiffe://a.test/other", issuer=root, subject="another worker"), Denial.NOT_CA),
    ],
    ids=["not an authority", "no keyCertSign", "other domain", "no basicConstraints", "for code only", "RSA-1024", "a leaf"],
)
def test_a_path_through_an_intermediate_that_breaks_a_rule_is_refused(
    make: Callable[[MadeCertificate], MadeCertificate], reason: Denial
) -> None:
    root = authority()
    middle = make(root)
    assert denial(bundles(a=[root]), leaf(issuer=middle), middle) is reason


def test_a_path_length_is_kept() -> None:
    root = authority(path_length=0)
    middle = authority(issuer=root, subject="middle")
    assert denial(bundles(a=[root]), leaf(issuer=middle), middle) is Denial.BAD_PATH
    assert verify(bundles(a=[root]), leaf(issuer=root)).not_after == END


@pytest.mark.parametrize(("domain", "is_within"), [("a.test", True), (".a.test", False), ("b.test", False)])
def test_a_name_constraint_on_uris_is_kept(domain: str, is_within: bool) -> None:
    permitted = x509.NameConstraints([x509.UniformResourceIdentifier(domain)], None)
    root = authority(uris=(), extra=((permitted, True),))
    if is_within:
        assert verify(bundles(a=[root]), leaf(issuer=root)).spiffe_id.trust_domain == A
    else:
        assert denial(bundles(a=[root]), leaf(issuer=root)) is Denial.BAD_PATH


def test_a_name_constraint_that_excludes_is_kept() -> None:
    excluded = x509.NameConstraints(None, [x509.UniformResourceIdentifier("a.test")])
    root = authority(uris=(), extra=((excluded, True),))
    assert denial(bundles(a=[root]), leaf(issuer=root)) is Denial.BAD_PATH


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")


@pytest.mark.parametrize("place", ["leaf", "intermediate"])
def test_an_unknown_critical_extension_is_refused_and_an_uncritical_one_is_not(place: str) -> None:
    root = authority()
    for is_critical in (False, True):
        extra = ((UNKNOWN, is_critical),)
        middle = authority(issuer=root, subject="middle", extra=extra if place == "intermediate" else ())
        worker = leaf(issuer=middle, extra=extra if place == "leaf" else ())
        if is_critical:
            assert denial(bundles(a=[root]), worker, middle) is Denial.BAD_PATH
        else:
            assert verify(bundles(a=[root]), worker, middle).not_after == END


def test_a_leaf_whose_signature_is_not_its_authoritys_is_refused() -> None:
    signer = key_of("ed25519")
    root = authority(key=signer)
    worker = leaf("spiffe://a.test/good", issuer=root)
    altered = rewritten(worker, b"/good", b"/evil", key_of("ed25519", 1))
    assert denial(bundles(a=[root]), altered) is Denial.UNKNOWN_AUTHORITY
    assert verify(bundles(a=[root]), rewritten(worker, b"/good", b"/evil", signer)).spiffe_id.path == "/evil"


@pytest.mark.parametrize("place", ["leaf", "intermediate"])
def test_a_path_over_sha1_is_refused(place: str) -> None:
    signer: rsa.RSAPrivateKey = key_of("rsa2048")
    root = authority(key=signer)
    if place == "leaf":
        path = [signed_over(leaf(issuer=root), "sha1", signer)]
    else:
        middle = signed_over(authority(issuer=root, subject="middle"), "sha1", signer)
        path = [leaf(issuer=middle), middle]
    assert denial(bundles(a=[root]), *path) is Denial.WEAK_SIGNATURE


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa2048"])
def test_every_good_kind_of_key_may_sign_and_be_signed(kind: str) -> None:
    root = authority(key=key_of(kind))
    assert verify(bundles(a=[root]), leaf(issuer=root, key=key_of(kind, 1))).not_after == END


def chain_of(length: int) -> tuple[MadeCertificate, list[MadeCertificate]]:
    """An anchor and a path of `length` certificates under it."""
    root = signer = authority()
    middles: list[MadeCertificate] = []
    for number in range(length - 1):
        signer = authority(issuer=signer, subject=f"middle {number}")
        middles.insert(0, signer)
    return root, [leaf(issuer=signer), *middles]


def test_sixteen_certificates_are_taken_and_seventeen_are_not() -> None:
    root, path = chain_of(16)
    assert verify(bundles(a=[root]), *path).not_after == END
    root, path = chain_of(17)
    assert denial(bundles(a=[root]), *path) is Denial.BAD_PATH


def test_more_than_a_hundred_certificates_are_refused_unparsed() -> None:
    root = authority()
    worker = leaf(issuer=root)
    assert verify(bundles(a=[root]), worker, *[root] * 99).not_after == END
    assert denial(bundles(a=[root]), worker, *[root] * 100) is Denial.BAD_PATH


def test_no_certificate_at_all_is_refused() -> None:
    assert denial(bundles(a=[authority()])) is Denial.BAD_PATH


def test_unrelated_certificates_are_ignored() -> None:
    root, stranger = authority(), authority("b.test")
    verified = verify(bundles(a=[root]), leaf(issuer=root), stranger, leaf(issuer=stranger))
    assert verified.not_after == END


def test_the_first_certificate_is_the_leaf() -> None:
    root = authority()
    middle = authority(issuer=root, subject="middle")
    assert denial(bundles(a=[root]), middle, leaf(issuer=middle)) is Denial.LEAF_IS_CA


def test_a_leaf_that_breaks_a_rule_is_refused_before_its_path_is_built() -> None:
    assert denial(BundleSet({}), leaf("spiffe://a.test", issuer=authority())) is Denial.ROOT_PATH


# -- the moment

ENDS, BEGINS = {"end": NOW - SECOND}, {"start": NOW + SECOND}


@pytest.mark.parametrize(("dates", "reason"), [(ENDS, Denial.EXPIRED), (BEGINS, Denial.NOT_YET_VALID)], ids=["over", "to come"])
@pytest.mark.parametrize("place", ["leaf", "intermediate", "anchor"])
def test_each_certificate_of_a_path_must_be_within_its_dates(place: str, dates: dict[str, datetime], reason: Denial) -> None:
    root = authority(**(dates if place == "anchor" else {}))
    middle = authority(issuer=root, subject="middle", **(dates if place == "intermediate" else {}))
    worker = leaf(issuer=middle, **(dates if place == "leaf" else {}))
    assert denial(bundles(a=[root]), worker, middle) is reason
    moment = NOW - 2 * SECOND if dates is ENDS else NOW + 2 * SECOND
    assert verify(bundles(a=[root]), worker, middle, now=moment)


@pytest.mark.parametrize(
    ("moment", "reason"),
    [(START - SECOND, Denial.NOT_YET_VALID), (START, None), (END, None), (END + SECOND, Denial.EXPIRED)],
)
def test_one_verifier_works_at_any_time(moment: datetime, reason: Denial | None) -> None:
    root = authority()
    path = path_of(leaf(issuer=root))
    verifier = SpiffeVerifier(bundles(a=[root]))
    verifier.verify(path, NOW)
    if reason is None:
        verifier.verify(path, moment)
    else:
        with pytest.raises(PeerDenied) as refused:
            verifier.verify(path, moment)
        assert refused.value.reason is reason
    verifier.verify(path, NOW)


def test_each_verification_uses_its_own_time() -> None:
    """OpenSSL's store keeps the first time that it is given: a peer's renewed SVID must not seem to lie in the future."""
    root = authority()
    verifier = SpiffeVerifier(bundles(a=[root]))
    first, later = leaf(issuer=root, end=NOW + SECOND), leaf(issuer=root, start=NOW + 60 * SECOND)
    verifier.verify(path_of(first), NOW)
    assert verifier.verify(path_of(later), NOW + 61 * SECOND).not_before == NOW + 60 * SECOND
    with pytest.raises(PeerDenied) as refused:
        verifier.verify(path_of(first), NOW + 61 * SECOND)
    assert refused.value.reason is Denial.EXPIRED
    verifier.verify(path_of(first), NOW)


def test_dates_after_2038_and_2050_are_ordinary() -> None:
    late = datetime(2051, 6, 1, tzinfo=NOW.tzinfo)
    root = authority(end=late + SECOND)
    assert verify(bundles(a=[root]), leaf(issuer=root, end=late + SECOND), now=late).not_after == late + SECOND
    assert denial(bundles(a=[root]), leaf(issuer=root), now=late) is Denial.EXPIRED
