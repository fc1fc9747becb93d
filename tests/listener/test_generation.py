"""Generations built from credentials, roles and access rules: certificate, authentication, expiry."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.cert_factory import MadeCertificate, authority, key_of, leaf, make_certificate, rewritten
from tests.support.revocation_lists import make_list
from tests.support.tls_ends import (
    EARLY,
    LATE,
    Identity,
    PublicPeer,
    Side,
    identity,
    lasting_authority,
    public_context,
    shake_hands,
)
from tunnel.authz.pins import SpkiPin
from tunnel.authz.rules import AnyRule, CommonNameRule, PolicyRule, Rule
from tunnel.config.model import Access, TlsOptions
from tunnel.errors import Denial, IdentityError, IdentityFault, PeerDenied
from tunnel.identity.credentials import Credentials, PkiCredentials, SvidCredentials, X509Svid
from tunnel.lazy_dataclass import replace
from tunnel.listener.generation import Generation, GenerationBuilder, GenerationConfig, build_generation
from tunnel.pkix.revocation import RevocationLists
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.tls.context import TlsContext

LASTING: dict[str, Any] = {"start": EARLY, "end": LATE}
ROOT = make_certificate(is_ca=True, usage=("key_cert_sign",), key=key_of("p256", 20), subject="root", **LASTING)
ANYONE: tuple[Rule, ...] = (AnyRule(),)


def shown(number: int, *, dns_names: tuple[str, ...] = ("db.test",), issuer: MadeCertificate | None = ROOT) -> MadeCertificate:
    return make_certificate(
        issuer=issuer, is_ca=None, usage=None, key=key_of("p256", number), subject=f"n{number}", dns_names=dns_names, **LASTING
    )


OURS, THEIRS = shown(30), shown(31)
DISK = PkiCredentials((OURS.certificate,), OURS.key, (ROOT.certificate,))
BARE = PkiCredentials((), None, (ROOT.certificate,))


def svid_credentials(who: Identity) -> SvidCredentials:
    svid = X509Svid(parse_spiffe_id("spiffe://a.test/w"), "", who.chain, who.leaf.key, LATE)
    return SvidCredentials(
        svid, BundleSet({TrustDomain("a.test"): TrustBundle(TrustDomain("a.test"), (who.root.certificate,))})
    )


def build(credentials: Credentials, *, is_server: bool = True, host: str = "db.test", **access: Any) -> Generation:
    return build_generation(1, credentials, GenerationConfig(is_server, Access(**({"rules": ANYONE} | access)), host))


def meet(context: TlsContext, who: MadeCertificate | None, *, is_server: bool = True) -> tuple[Side, PublicPeer]:
    side = Side(context)
    peer = PublicPeer(public_context(Identity(who, (), ROOT) if who else None), is_server=not is_server)
    shake_hands(*((peer, side) if is_server else (side, peer)))
    return side, peer


def test_a_server_with_files_shows_them_and_asks_by_ordinary_rules() -> None:
    generation = build(DISK, rules=(CommonNameRule("n31"),))
    side, peer = meet(generation.context, THEIRS)
    assert str(side.end.admitted) == "peer=db.test rule=cn:n31"
    assert len(peer.connection.get_client_ca_list()) == 1
    seen = peer.connection.get_peer_certificate(as_cryptography=True)
    assert seen == OURS.built
    with pytest.raises(PeerDenied) as refused:
        meet(generation.context, shown(32))
    assert refused.value.reason is Denial.NO_RULE
    assert (generation.identity, generation.is_bound_by_expiry) == ("CN=n30", False)
    assert generation.expires == OURS.certificate.not_after
    assert generation.begins == OURS.certificate.not_before


def test_a_client_with_files_verifies_the_host_and_shows_its_certificate() -> None:
    side, peer = meet(build(DISK, is_server=False, host="db.test.").context, THEIRS, is_server=False)
    assert side.end.admitted is not None
    seen = peer.connection.get_peer_certificate(as_cryptography=True)
    assert seen == OURS.built
    with pytest.raises(PeerDenied) as refused:
        meet(build(DISK, is_server=False, host="other.test").context, THEIRS, is_server=False)
    assert refused.value.reason is Denial.HOST_NAME


@pytest.mark.parametrize("credentials", [BARE, DISK], ids=["without-files", "with-files"])
def test_a_client_that_shows_nothing_verifies_the_server_all_the_same(credentials: PkiCredentials) -> None:
    generation = build(credentials, is_server=False, is_mutual=False)
    side, peer = meet(generation.context, THEIRS, is_server=False)
    assert side.end.admitted is not None
    assert peer.connection.get_peer_certificate(as_cryptography=True) is None
    with pytest.raises(PeerDenied):
        meet(generation.context, shown(31, issuer=None), is_server=False)


def test_without_a_certificate_there_is_nothing_to_show_at_the_status_port() -> None:
    generation = build(BARE, is_server=False, is_mutual=False)
    assert (generation.status_context, generation.expires, generation.identity) == (None, None, "")


def test_a_server_that_asks_for_nothing_admits_everyone_as_nobody() -> None:
    for credentials in (DISK, svid_credentials(identity())):
        side, _peer = meet(build(credentials, rules=(), is_mutual=False).context, None)
        assert str(side.end.admitted) == "peer=anonymous rule=no-authentication"


def test_nobody_is_asked_for_a_certificate_at_the_status_port() -> None:
    for credentials in (DISK, svid_credentials(identity())):
        context = build(credentials, rules=()).status_context
        assert context is not None
        side, _peer = meet(context, None)
        assert str(side.end.admitted) == "peer=anonymous rule=status"


def test_pins_count_alone() -> None:
    lonely = shown(33, issuer=None)
    key = lonely.built.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = SpkiPin("sha256", hashlib.sha256(key).digest())
    for is_server in (True, False):
        context = build(DISK, is_server=is_server, host="nowhere.test", pins=(pin,)).context
        side, _peer = meet(context, lonely, is_server=is_server)
        assert side.end.admitted is not None
        with pytest.raises(PeerDenied) as refused:
            meet(context, THEIRS, is_server=is_server)
        assert refused.value.reason is Denial.PIN


def test_only_accepted_trust_domains_are_admitted_whatever_the_bundles_contain() -> None:
    ours = identity()
    for accepted, reason in (((TrustDomain("a.test"),), None), ((TrustDomain("b.test"),), Denial.FOREIGN_TRUST_DOMAIN)):
        context = build(svid_credentials(ours), trust_domains=accepted).context
        if reason is None:
            meet(context, ours.leaf)
            continue
        with pytest.raises(PeerDenied) as refused:
            meet(context, ours.leaf)
        assert refused.value.reason is reason


def test_a_rotation_of_our_certificate_keeps_the_cache_of_admissions() -> None:
    ours, other = identity(), identity(root=lasting_authority(key=key_of("p256", 78)))
    config = GenerationConfig(True, Access(ANYONE))
    first = build_generation(1, svid_credentials(ours), config)
    rotated = build_generation(2, svid_credentials(identity(root=ours.root)), config, first)
    assert rotated.admission is first.admission is not None
    for credentials, changed in (
        (svid_credentials(other), config),
        (svid_credentials(ours), replace(config, access=Access((CommonNameRule("x"),)))),
        (DISK, config),
    ):
        assert build_generation(3, credentials, changed, rotated).admission is not first.admission
    silent = replace(config, access=Access((), is_mutual=False))
    assert build_generation(4, svid_credentials(ours), silent, first).admission is None


def test_with_files_an_unchanged_ca_keeps_the_cache_of_admissions() -> None:
    config = GenerationConfig(True, Access(ANYONE))
    first = build_generation(1, DISK, config)
    rotated = PkiCredentials((THEIRS.certificate,), THEIRS.key, (ROOT.certificate,))
    assert build_generation(2, rotated, config, first).admission is first.admission


@pytest.mark.parametrize("credentials", [DISK, svid_credentials(identity())], ids=["files", "svid"])
def test_generations_of_one_builder_share_what_does_not_depend_on_access_rules(credentials: Credentials) -> None:
    builder = GenerationBuilder(7, credentials)
    one, other = (builder.build(GenerationConfig(True, Access((CommonNameRule(name),)))) for name in ("x", "y"))
    assert one.status_context is other.status_context is not None
    assert one.context is not other.context
    assert one.admission is not other.admission
    assert one.number == other.number == 7
    older = replace(GenerationConfig(True, Access(ANYONE)), tls=TlsOptions(is_limited_to_tls12=True))
    assert builder.build(older).status_context is not one.status_context


def test_under_spiffe_ordinary_certificates_prove_nothing() -> None:
    ours = identity()
    generation = build(svid_credentials(ours))
    side, _peer = meet(generation.context, ours.leaf)
    assert str(side.end.admitted) == "peer=spiffe://a.test/w rule=any"
    with pytest.raises(PeerDenied):
        meet(generation.context, THEIRS)
    assert (generation.identity, generation.is_bound_by_expiry) == ("spiffe://a.test/w", True)


def test_without_a_certificate_a_server_that_asks_admits_nobody() -> None:
    side = Side(build(DISK).context)
    with pytest.raises(PeerDenied, match="no-certificate: peer did not return a certificate"):
        shake_hands(PublicPeer(public_context(), is_server=False), side)
    assert side.end.admitted is None


def test_a_policy_is_asked_last_and_makes_the_handshake_slow() -> None:
    asked = []

    def ask(peer: object) -> bool:
        asked.append(peer)
        return True

    config = GenerationConfig(True, Access((CommonNameRule("n31"),))).with_policy(PolicyRule("data.p", ask))
    context = build_generation(1, DISK, config).context
    side, _peer = meet(context, THEIRS)
    assert side.end.is_slow()
    assert (str(side.end.admitted), asked) == ("peer=db.test rule=cn:n31", [])
    for count in (1, 2):  # it may change its mind, so it is asked each time
        side, _peer = meet(context, shown(32))
        assert side.end.admitted is not None
        assert (side.end.admitted.rule, len(asked)) == ("policy:data.p", count)


def test_the_newest_protocol_can_be_chosen() -> None:
    for options, version in ((TlsOptions(), "TLSv1.3"), (TlsOptions(is_limited_to_tls12=True), "TLSv1.2")):
        context = build_generation(1, DISK, GenerationConfig(True, Access(ANYONE), tls=options)).context
        side, _peer = meet(context, THEIRS)
        assert side.end.version() == version


# -- revocation lists

SIGNER = make_certificate(is_ca=True, key=key_of("p256", 550), subject="lists", usage=("key_cert_sign", "crl_sign"), **LASTING)
LISTED_OURS, LISTED = shown(551, issuer=SIGNER), shown(552, issuer=SIGNER)


def with_lists(*revoked: MadeCertificate, end: datetime = LATE, **settings: bool) -> PkiCredentials:
    """Credentials with one list that begins before every date of the tests."""
    one = make_list(SIGNER, *(made.certificate.serial_number for made in revoked), begin=EARLY, end=end)
    lists = RevocationLists((one,), is_complete=True, **settings)
    return PkiCredentials((LISTED_OURS.certificate,), LISTED_OURS.key, (SIGNER.certificate,), revocation=lists)


@pytest.mark.parametrize("is_server", [True, False])
def test_a_peer_with_a_revoked_certificate_is_refused(is_server: bool) -> None:
    meet(build(with_lists(OURS), is_server=is_server).context, LISTED, is_server=is_server)
    with pytest.raises(PeerDenied) as refused:
        meet(build(with_lists(LISTED), is_server=is_server).context, LISTED, is_server=is_server)
    assert refused.value.reason is Denial.REVOKED


def test_a_revoked_svid_is_refused() -> None:
    ours = identity()
    lists = RevocationLists((make_list(ours.root, ours.leaf.certificate.serial_number, begin=EARLY, end=LATE),))
    generation = build(replace(svid_credentials(ours), revocation=lists))
    with pytest.raises(PeerDenied) as refused:
        meet(generation.context, ours.leaf)
    assert refused.value.reason is Denial.REVOKED
    (warning,) = generation.warnings
    assert "our own certificate (subject" in warning


def test_our_own_revoked_certificate_and_expired_lists_are_warned_of() -> None:
    usual = build(with_lists())
    assert (usual.warnings, usual.lists_expire) == ((), LATE)
    assert build(DISK).lists_expire is None
    own, expired = build(with_lists(LISTED_OURS, end=EARLY)).warnings
    assert own.startswith("our own certificate (subject 'CN=n551', serial ")
    assert own.endswith(" is revoked: peers that check revocation lists refuse it")
    assert expired.endswith("expired at 2020-01-01T00:00:00Z: certificates of this issuer are refused")
    assert build(with_lists(LISTED_OURS), rules=(), is_mutual=False).warnings == ()


def test_an_accepted_peer_without_a_valid_list_is_warned_of() -> None:
    warnings: list[str] = []
    config = GenerationConfig(True, Access(ANYONE), warn=warnings.append)
    meet(build_generation(1, with_lists(end=EARLY, is_required=False), config).context, LISTED)
    (warning,) = warnings
    assert warning.startswith("certificate accepted without a valid revocation list: the revocation list of 'CN=lists' expired")


ODD_SUBJECTS = {
    "UTF8String that is not UTF-8": (0x0C, b"n\xff\xfee", "CN=#0c046efffe65"),
    "T61String in Latin-1": (0x14, b"n\xe9me", "CN=n\xe9me"),
    "VisibleString": (0x1A, b"name", "CN=#1a046e616d65"),
    "GeneralString": (0x1B, b"name", "CN=#1b046e616d65"),
    "GeneralizedTime": (0x18, b"name", "CN=#18046e616d65"),
    "IA5String beyond ASCII": (0x16, b"n\xe9me", "CN=#16046ee96d65"),
    "BIT STRING": (0x03, b"\x00abc", "CN=#030400616263"),
}


@pytest.mark.parametrize(("tag", "text", "shown"), ODD_SUBJECTS.values(), ids=ODD_SUBJECTS)
@pytest.mark.parametrize("is_server", [True, False])
def test_a_certificate_with_an_odd_subject_is_presented_or_refused_by_our_own_error(
    tag: int, text: bytes, shown: str, is_server: bool
) -> None:
    """A reload keeps the previous generation and has no other effect."""
    signer = key_of("ed25519")
    root = authority(key=signer)
    odd = rewritten(leaf(issuer=root, subject="NAME"), b"\x0c\x04NAME", bytes([tag, 4]) + text, signer)
    held = PkiCredentials((odd.certificate,), odd.key, (root.certificate,))
    assert outcome_of(held, is_server=is_server) in (shown, IdentityFault.BAD_CERTIFICATE)


def outcome_of(held: PkiCredentials, *, is_server: bool) -> str | IdentityFault:
    """Return the identity of the generation, or the error."""
    try:
        return build_generation(1, held, GenerationConfig(is_server, Access(ANYONE), host="db.test")).identity
    except IdentityError as error:
        return error.reason
