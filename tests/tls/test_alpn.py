"""ALPN: the protocol of ACME validation, and configured protocols."""

from __future__ import annotations

import pytest

from tests.support.tls_ends import VERSIONS, PublicPeer, Side, admit_all, identity, public_context, shake_hands
from tunnel.authz.authorizer import allow_anonymous
from tunnel.config.model import TlsOptions
from tunnel.errors import TlsError
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.client_hello import ClientHello
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.peer_auth import PeerAuth

WHO = identity()
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
PRESENTED = Presented(WHO.chain, WHO.leaf.key)


def client(version: int, offers: list[bytes]) -> PublicPeer:
    made = public_context(version=version)
    if offers:
        made.set_alpn_protos(offers)
    return PublicPeer(made, is_server=False)


def server(*, accepts_acme: bool) -> Side:
    return Side(TlsContext(PRESENTED, allow_anonymous("test"), is_server=True, accepts_acme=accepts_acme))


@BOTH_VERSIONS
@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        ([], b""),
        ([b"acme-tls/1"], b"acme-tls/1"),
        ([b"h2", b"acme-tls/1"], b"acme-tls/1"),
        ([b"acme-tls/1", b"h2"], b"acme-tls/1"),
    ],
)
def test_acme_tls_1_is_negotiated_if_it_is_offered(version: int, offers: list[bytes], agreed: bytes) -> None:
    ours, theirs = server(accepts_acme=True), client(version, offers)
    shake_hands(theirs, ours)
    assert ours.end.alpn() == agreed
    assert theirs.connection.get_alpn_proto_negotiated() == agreed


@BOTH_VERSIONS
@pytest.mark.parametrize("offers", [[b"h2"], [b"h2", b"http/1.1"], [b"acme-tls/10"], [b"acme-tls/"], [b"x" * 255]])
def test_a_client_that_offers_others_only_is_refused_by_an_alert(version: int, offers: list[bytes]) -> None:
    ours, theirs = server(accepts_acme=True), client(version, offers)
    with pytest.raises(TlsError):
        ours.shake(theirs.shake())
    theirs.shake(ours.end.take())
    assert "no application protocol" in theirs.error


@BOTH_VERSIONS
def test_without_acme_no_protocol_is_negotiated(version: int) -> None:
    ours, theirs = server(accepts_acme=False), client(version, [b"h2", b"acme-tls/1"])
    shake_hands(theirs, ours)
    assert ours.end.alpn() == b""
    assert theirs.connection.get_alpn_proto_negotiated() == b""


PROBE = ClientHello("www.example.test", (b"acme-tls/1",))


@pytest.mark.parametrize(
    ("hello", "is_admitted"),
    [
        (PROBE, True),
        (ClientHello("", PROBE.alpn), False),
        (ClientHello("other.example.test", PROBE.alpn), False),
        (ClientHello(PROBE.server_name, ()), False),
        (ClientHello(PROBE.server_name, (b"h2",)), False),
        (ClientHello(PROBE.server_name, (b"h2", b"acme-tls/1")), False),
        (ClientHello(PROBE.server_name, (b"acme-tls/1", b"acme-tls/1")), False),
    ],
)
def test_only_validation_connections_get_the_challenge_certificate(hello: ClientHello, is_admitted: bool) -> None:
    challenges = AcmeChallenges()
    with challenges.present("www.example.test", PRESENTED):
        assert (challenges.admit(hello) is not None) == is_admitted


def test_validation_connections_are_refused_without_a_challenge() -> None:
    challenges = AcmeChallenges()
    assert challenges.admit(PROBE) is None
    with pytest.raises(KeyError), challenges.present("www.example.test", PRESENTED):
        raise KeyError
    assert challenges.admit(PROBE) is None


# -- protocols of the operator's


def server_of(*protocols: str, accepts_acme: bool = False) -> Side:
    options = TlsOptions(protocols=protocols)
    return Side(TlsContext(PRESENTED, allow_anonymous("test"), is_server=True, options=options, accepts_acme=accepts_acme))


@BOTH_VERSIONS
@pytest.mark.parametrize("accepts_acme", [False, True])
@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        ([], b""),
        ([b"h2"], b"h2"),
        ([b"http/1.1", b"h2"], b"h2"),
        ([b"http/1.1"], b"http/1.1"),
        ([b"x", b"http/1.1"], b"http/1.1"),
    ],
)
def test_a_server_chooses_the_first_of_its_own_protocols(
    version: int, offers: list[bytes], agreed: bytes, accepts_acme: bool
) -> None:
    ours, theirs = server_of("h2", "http/1.1", accepts_acme=accepts_acme), client(version, offers)
    shake_hands(theirs, ours)
    assert ours.end.alpn() == agreed
    assert theirs.connection.get_alpn_proto_negotiated() == agreed


@BOTH_VERSIONS
@pytest.mark.parametrize("offers", [[b"h3"], [b"acme-tls/1"], [b"h"], [b"h22"]])
def test_a_client_that_offers_no_protocol_of_the_servers_is_refused(version: int, offers: list[bytes]) -> None:
    ours, theirs = server_of("h2"), client(version, offers)
    with pytest.raises(TlsError):
        ours.shake(theirs.shake())
    theirs.shake(ours.end.take())
    assert "no application protocol" in theirs.error


@BOTH_VERSIONS
def test_a_client_of_ours_offers_its_protocols_in_their_order(version: int) -> None:
    options = TlsOptions(protocols=("h2", "http/1.1"))
    ours = Side(TlsContext(None, PeerAuth(admit_all), is_server=False, options=options))
    theirs = public_context(WHO, version=version)
    seen: list[list[bytes]] = []
    theirs.set_alpn_select_callback(lambda _connection, offered: seen.append(offered) or b"http/1.1")
    shake_hands(ours, PublicPeer(theirs, is_server=True))
    assert seen == [[b"h2", b"http/1.1"]]
    assert ours.end.alpn() == b"http/1.1"
