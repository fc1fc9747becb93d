"""Verification by PKI rules, host name and pin, through complete handshakes."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.cert_factory import CLIENT_ONLY, NOW, SERVER_ONLY, START, MadeCertificate, key_of, make_certificate
from tests.support.tls_ends import EARLY, LATE, VERSIONS, Identity, PublicPeer, Side, public_context, shake_hands
from tunnel.authz.authorizer import Authorizer, allow_anonymous
from tunnel.authz.peer import parse_peer
from tunnel.authz.pins import SpkiPin
from tunnel.authz.rules import AnyRule
from tunnel.errors import Denial, IdentityError, PeerDenied
from tunnel.pkix.certificate import parse_certificate
from tunnel.pkix.extensions import CLIENT_AUTH, SERVER_AUTH
from tunnel.pkix.path import Anchors
from tunnel.tls.admission import PeerAdmission
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.peer_auth import AuthorityNames, PeerAuth
from tunnel.tls.verify import PinVerifier, PkiVerifier, build_pki_anchors

LASTING: dict[str, Any] = {"start": EARLY, "end": LATE}
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


def root(number: int = 20, **fields: Any) -> MadeCertificate:
    told = {"is_ca": True, "usage": ("key_cert_sign",), "key": key_of("p256", number), "subject": "root"} | LASTING
    return make_certificate(**(told | fields))


def plain_leaf(issuer: MadeCertificate | None, **fields: Any) -> MadeCertificate:
    """As most tools make them: no basicConstraints, no key usage."""
    told = {"subject": "plain", "is_ca": None, "usage": None, "key": key_of("p256", 30)} | LASTING
    return make_certificate(issuer=issuer, **(told | fields))


def anchors_of(*made: MadeCertificate) -> Anchors:
    return build_pki_anchors([one.certificate for one in made])


def verify(anchors: list[MadeCertificate], *path: MadeCertificate) -> None:
    PkiVerifier(anchors_of(*anchors), CLIENT_AUTH).verify([one.certificate for one in path], NOW)


ROOT = root()
MIDDLE = root(21, issuer=ROOT, subject="middle")


@pytest.mark.parametrize(
    ("anchors", "path"),
    [
        ([ROOT], [plain_leaf(ROOT)]),
        ([ROOT], [plain_leaf(MIDDLE), MIDDLE]),
        ([MIDDLE], [plain_leaf(MIDDLE)]),
        ([MIDDLE], [plain_leaf(MIDDLE), MIDDLE]),
        ([root(22), ROOT], [plain_leaf(ROOT)]),
        ([ROOT], [plain_leaf(ROOT, usage=("key_encipherment",))]),
        ([ROOT], [plain_leaf(ROOT, uris=("spiffe://a.test",))]),
    ],
    ids=["leaf", "through-intermediate", "intermediate-as-anchor", "both", "one-of-two", "key-usage", "id-without-path"],
)
def test_a_path_to_an_anchor_is_good(anchors: list[MadeCertificate], path: list[MadeCertificate]) -> None:
    verify(anchors, *path)


@pytest.mark.parametrize("signer", [0, 1, 2])
def test_of_authorities_with_one_name_and_no_key_ids_each_is_tried(signer: int) -> None:
    named_alike = [make_certificate(is_ca=True, subject="alike", usage=("key_cert_sign",), has_key_ids=False) for _ in range(3)]
    verify([ROOT, *named_alike], plain_leaf(named_alike[signer], has_key_ids=False))
    impostor = make_certificate(is_ca=True, subject="alike", usage=("key_cert_sign",), has_key_ids=False)
    with pytest.raises(PeerDenied) as refused:
        verify([ROOT, *named_alike], plain_leaf(impostor, has_key_ids=False))
    assert refused.value.reason is Denial.UNKNOWN_AUTHORITY


def test_a_leaf_that_is_an_anchor_itself_is_good() -> None:
    lonely = plain_leaf(None)
    verify([lonely], lonely)


@pytest.mark.parametrize(
    ("anchors", "path", "reason"),
    [
        ([], [plain_leaf(ROOT)], Denial.UNKNOWN_AUTHORITY),
        ([root(22)], [plain_leaf(ROOT)], Denial.UNKNOWN_AUTHORITY),  # the same name, another key
        ([ROOT], [plain_leaf(MIDDLE)], Denial.UNKNOWN_AUTHORITY),
        ([ROOT], [plain_leaf(None)], Denial.UNKNOWN_AUTHORITY),
        ([ROOT], [plain_leaf(ROOT, end=NOW - timedelta(seconds=1))], Denial.EXPIRED),
        ([ROOT], [plain_leaf(ROOT, start=NOW + timedelta(seconds=1))], Denial.NOT_YET_VALID),
        ([ROOT], [], Denial.BAD_PATH),
    ],
    ids=["no-anchor", "impostor", "intermediate-missing", "self-signed", "expired", "early", "empty"],
)
def test_a_path_without_an_anchor_is_refused(
    anchors: list[MadeCertificate], path: list[MadeCertificate], reason: Denial
) -> None:
    with pytest.raises(PeerDenied) as refused:
        verify(anchors, *path)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ([plain_leaf(MIDDLE), MIDDLE], "CN=root"),
        ([plain_leaf(MIDDLE)], "CN=middle"),
        ([plain_leaf(None)], "CN=plain"),
        ([plain_leaf(root(22, subject="a\nb"))], "CN=a\\nb"),
    ],
    ids=["chain", "intermediate-missing", "self-signed", "hostile"],
)
def test_a_refusal_names_the_authority_that_is_not_trusted(path: list[MadeCertificate], named: str) -> None:
    with pytest.raises(PeerDenied) as refused:
        verify([], *path)
    assert str(refused.value).endswith(f" '{named}'")


# -- through handshakes


def admission(verifier: Any) -> PeerAdmission:
    return PeerAdmission(verifier, Authorizer((AnyRule(),), None))


def ours(peer_auth: PeerAuth, *, is_server: bool, shown: MadeCertificate | None = None) -> Side:
    presented = Presented((shown.certificate,), shown.key) if shown else None
    return Side(TlsContext(presented, peer_auth, is_server=is_server))


def peer_auth(verifier: Any, **fields: Any) -> PeerAuth:
    return PeerAuth(admission(verifier), **fields)


def meet(side: Side, who: MadeCertificate | None, version: int) -> PublicPeer:
    """Shake hands with a peer that shows `who`; raises PeerDenied when ours refuses."""
    peer = PublicPeer(public_context(Identity(who, (), ROOT) if who else None, version=version), is_server=not side.is_server)
    shake_hands(*((peer, side) if side.is_server else (side, peer)))
    return peer


def meet_as_client(host: str, who: MadeCertificate, version: int) -> Side:
    side = ours(peer_auth(PkiVerifier(anchors_of(ROOT), SERVER_AUTH, host)), is_server=False)
    meet(side, who, version)
    return side


NAMED = plain_leaf(ROOT, dns_names=("db.test", "*.wild.test"), extra=())
ADDRESSED = plain_leaf(
    ROOT,
    extra=((x509.SubjectAlternativeName([x509.IPAddress(ip_address("192.0.2.1")), x509.IPAddress(ip_address("::1"))]), False),),
)


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("host", "who"),
    [
        ("db.test", NAMED),
        ("DB.test", NAMED),
        ("db.test.", NAMED),
        ("db.test", plain_leaf(ROOT, dns_names=("*.test",))),  # which OpenSSL would not take
        ("b\u00fccher.test", plain_leaf(ROOT, dns_names=("xn--bcher-kva.test",))),
        ("::ffff:192.0.2.1", ADDRESSED),
        ("a.wild.test", NAMED),
        ("192.0.2.1", ADDRESSED),
        ("::1", ADDRESSED),
    ],
)
def test_a_server_with_the_hosts_name_is_good(host: str, who: MadeCertificate, version: int) -> None:
    side = meet_as_client(host, who, version)
    assert side.end.admitted is not None


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("host", "who"),
    [
        ("other.test", NAMED),
        ("wild.test", NAMED),
        ("a.b.wild.test", NAMED),
        ("plain", plain_leaf(ROOT)),  # a common name is no host name
        ("plain", plain_leaf(ROOT, dns_names=("other.test",))),
        ("192.0.2.2", ADDRESSED),
        ("192.0.2.1", plain_leaf(ROOT, dns_names=("192.0.2.1",))),
        ("db.test", plain_leaf(ROOT, dns_names=("d*.test",))),
        ("db.test", plain_leaf(ROOT, dns_names=("db.test.",))),
        ("db.test", ADDRESSED),
        ("a.b.test", plain_leaf(ROOT, dns_names=("*.*.test", "a.*.test", "*"))),
        ("test", plain_leaf(ROOT, dns_names=("*", "*."))),
        ("db.test", plain_leaf(ROOT, uris=("https://db.test",))),
    ],
)
def test_a_server_without_the_hosts_name_is_refused(host: str, who: MadeCertificate, version: int) -> None:
    with pytest.raises(PeerDenied) as refused:
        meet_as_client(host, who, version)
    assert refused.value.reason is Denial.HOST_NAME


@BOTH_VERSIONS
@pytest.mark.parametrize(("we_serve", "wrong"), [(True, SERVER_ONLY), (False, CLIENT_ONLY)], ids=["server", "client"])
def test_a_certificate_for_another_purpose_is_refused(we_serve: bool, wrong: tuple[Any, ...], version: int) -> None:
    for purposes, is_good in ((wrong, False), ((ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,), True), (None, True)):
        who = plain_leaf(ROOT, purposes=purposes, dns_names=("db.test",))
        right = CLIENT_AUTH if we_serve else SERVER_AUTH
        wanted = peer_auth(PkiVerifier(anchors_of(ROOT), right, "" if we_serve else "db.test"))
        side = ours(wanted, is_server=we_serve, shown=NAMED if we_serve else None)
        if is_good:
            meet(side, who, version)
            assert side.end.admitted is not None
        else:
            with pytest.raises(PeerDenied) as refused:
                meet(side, who, version)
            assert refused.value.reason is Denial.EXTENDED_KEY_USAGE


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384", "ed25519"])
def test_every_usual_kind_of_key_is_taken(kind: str) -> None:
    who = plain_leaf(ROOT, key=key_of(kind), dns_names=("db.test",))
    assert meet_as_client("db.test", who, VERSIONS["tls13"]).end.admitted is not None


def test_a_server_names_its_authorities_to_clients() -> None:
    for authorities, told in (((ROOT.certificate,), 1), ((), 0)):
        wanted = peer_auth(PkiVerifier(anchors_of(ROOT), CLIENT_AUTH), names=AuthorityNames(authorities))
        for _context in (1, 2):  # which have the parsed names in common
            peer = meet(ours(wanted, is_server=True, shown=NAMED), plain_leaf(ROOT), VERSIONS["tls12"])
            assert len(peer.connection.get_client_ca_list()) == told


@pytest.mark.parametrize("text", ["a\0b", "\u00fc" * 70, "a\n"])
def test_a_host_that_no_certificate_could_have_is_refused(text: str) -> None:
    with pytest.raises(IdentityError, match="no certificate can contain it"):
        PkiVerifier(anchors_of(), SERVER_AUTH, text)


@BOTH_VERSIONS
@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
def test_a_weak_key_is_refused_by_ordinary_rules_too(we_serve: bool, version: int) -> None:
    who = plain_leaf(ROOT, key=key_of("rsa1024"), dns_names=("db.test",))
    verifier = PkiVerifier(anchors_of(ROOT), CLIENT_AUTH if we_serve else SERVER_AUTH)
    with pytest.raises(PeerDenied) as refused:
        meet(ours(peer_auth(verifier), is_server=we_serve, shown=NAMED if we_serve else None), who, version)
    assert refused.value.reason is Denial.WEAK_KEY


# -- what a peer sends besides

# OpenSSL looks at the clock on the wall: what has run out has done so long ago.
GONE = {"start": EARLY - timedelta(days=9), "end": EARLY}
OLD_ROOT = root(20, **GONE)  # of ROOT's name and key
STRANGER = root(23, subject="stranger", **GONE)
CROSSED = root(20, issuer=STRANGER)  # ROOT's name and key under another authority


@BOTH_VERSIONS
@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("besides", [[OLD_ROOT], [CROSSED, STRANGER], [CROSSED, OLD_ROOT]], ids=["old", "crossed", "both"])
def test_a_path_ends_at_an_authority_that_we_trust_whatever_else_the_peer_sends(
    besides: list[MadeCertificate], we_serve: bool, version: int
) -> None:
    verifier = PkiVerifier(anchors_of(ROOT), CLIENT_AUTH if we_serve else SERVER_AUTH)
    wanted = peer_auth(verifier, names=AuthorityNames((ROOT.certificate,)))
    side = ours(wanted, is_server=we_serve, shown=NAMED if we_serve else None)
    peer = PublicPeer(public_context(Identity(NAMED, tuple(besides), ROOT), version=version), is_server=not we_serve)
    shake_hands(*((peer, side) if we_serve else (side, peer)))
    assert side.end.admitted is not None


@BOTH_VERSIONS
@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
def test_we_send_our_chain_without_trusted_authorities(we_serve: bool, version: int) -> None:
    who = plain_leaf(MIDDLE, dns_names=("db.test",))
    verifier = PkiVerifier(anchors_of(ROOT), CLIENT_AUTH if we_serve else SERVER_AUTH)
    wanted = peer_auth(verifier, names=AuthorityNames((ROOT.certificate, MIDDLE.certificate)))
    peer = meet(ours(wanted, is_server=we_serve, shown=who), plain_leaf(ROOT), version)
    assert peer.connection.get_peer_certificate(as_cryptography=True) == who.built
    assert len(peer.connection.get_peer_cert_chain(as_cryptography=True)) == (1 if we_serve else 0)


# -- pins


def pin_of(one: MadeCertificate, algorithm: str = "sha256") -> SpkiPin:
    key = one.built.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SpkiPin(algorithm, hashlib.new(algorithm, key).digest())


@BOTH_VERSIONS
@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"end": START},
        {"is_ca": True},
        {"purposes": (ExtendedKeyUsageOID.CODE_SIGNING,)},
    ],
    ids=["self-signed", "expired", "authority", "for-code"],
)
def test_a_pinned_key_is_the_whole_authentication(fields: dict[str, Any], we_serve: bool, version: int) -> None:
    who = plain_leaf(None, **fields)
    for algorithm in ("sha256", "sha384", "sha512"):
        verifier = PinVerifier([SpkiPin("sha256", bytes(32)), pin_of(who, algorithm)])
        side = ours(peer_auth(verifier), is_server=we_serve, shown=NAMED if we_serve else None)
        meet(side, who, version)
        assert side.end.admitted is not None


@BOTH_VERSIONS
@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
def test_a_key_that_is_not_pinned_is_refused_even_with_a_valid_path(we_serve: bool, version: int) -> None:
    other = plain_leaf(ROOT, key=key_of("p256", 31))
    verifier = PinVerifier([pin_of(plain_leaf(ROOT)), pin_of(ROOT)])
    side = ours(peer_auth(verifier), is_server=we_serve, shown=NAMED if we_serve else None)
    with pytest.raises(PeerDenied, match="unauthorized: pin verification failed") as refused:
        meet(side, other, version)
    assert refused.value.reason is Denial.PIN


# -- nobody is asked


@BOTH_VERSIONS
def test_without_a_certificate_request_every_client_is_anonymous(version: int) -> None:
    presented = Presented((NAMED.certificate,), NAMED.key)
    side = Side(TlsContext(presented, allow_anonymous("no-authentication"), is_server=True))
    peer = meet(side, plain_leaf(ROOT), version)
    assert peer.is_done
    assert str(side.end.admitted) == "peer=anonymous rule=no-authentication"
    assert len(peer.connection.get_client_ca_list()) == 0


def test_a_client_always_authenticates_the_server() -> None:
    with pytest.raises(AssertionError):
        TlsContext(None, allow_anonymous("x"), is_server=False)


# -- facts


def test_the_facts_of_a_peer_are_those_of_its_certificate() -> None:
    names = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "first"),
            x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "one"),
            x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "two"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "last"),
        ]
    )
    san = x509.SubjectAlternativeName(
        [
            x509.DNSName("Db.test"),
            x509.UniformResourceIdentifier("HTTPS://A.test/X"),
            x509.UniformResourceIdentifier("spiffe://a.test/w"),
            x509.IPAddress(ip_address("192.0.2.1")),
            x509.RFC822Name("me@a.test"),
        ]
    )
    key = key_of("p256", 30)
    builder = x509.CertificateBuilder(names, names, key.public_key(), 7, EARLY, LATE).add_extension(san, critical=False)
    from cryptography.hazmat.primitives import hashes

    made = builder.sign(key, hashes.SHA256())
    peer = parse_peer(parse_certificate(made.public_bytes(Encoding.DER)), None)
    assert (peer.common_name, peer.organizational_units) == ("last", ("one", "two"))
    assert (peer.dns_names, peer.uris) == (("Db.test",), ("https://A.test/X", "spiffe://a.test/w"))
    assert peer.ip_addresses == (ip_address("192.0.2.1"),)
    assert peer.leaf == made.public_bytes(Encoding.DER)
    assert peer.public_key == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_certificate_without_names_has_no_facts_but_is_a_peer() -> None:
    peer = parse_peer(plain_leaf(ROOT, subject="").certificate, None)
    assert (peer.common_name, peer.dns_names, peer.uris, peer.ip_addresses) == ("", (), (), ())
    assert str(peer) == "unnamed"


# In DER: the curve P-256, and a number that is nobody's.
_P256, _NO_CURVE = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d03017f")


def test_a_key_on_an_unknown_curve_does_not_match_a_pin() -> None:
    odd = parse_certificate(plain_leaf(None).der.replace(_P256, _NO_CURVE))
    with pytest.raises(PeerDenied) as refused:
        PinVerifier([pin_of(plain_leaf(None))]).verify([odd], NOW)
    assert refused.value.reason is Denial.PIN
