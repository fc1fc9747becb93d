"""A listener with ACME: a challenge is answered and closed; other clients get the usual handshake."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from cryptography import x509

from tests.support.socket_pairs import Clock, received, tcp_pair, unix_pair
from tests.support.tls_ends import VERSIONS, Identity, PublicPeer, admission, identity, lasting_authority, public_context
from tunnel.errors import Denial, PeerDenied, TlsError, TlsFault
from tunnel.relay.acme_handshake import AcmeHandshake
from tunnel.relay.handshake import HandshakeResult
from tunnel.relay.handshake_slots import HandshakeSlots, HandshakeTurns
from tunnel.relay.loop import Loop
from tunnel.relay.step import AcmeChallengeAnswered, ClosedWithoutData
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.peer_auth import PeerAuth
from tunnel.tls.records import Buffers

ROOT = lasting_authority()
OURS = identity("spiffe://a.test/ours", root=ROOT)
PEER = identity("spiffe://a.test/peer", root=ROOT)
ANSWER = identity("spiffe://challenge.test/answer")
NAME = "www.example.test"
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
MAIN = TlsContext(Presented(OURS.chain, OURS.leaf.key), PeerAuth(admission(ROOT)), is_server=True, accepts_acme=True)


class AcmeExchange:
    """An AcmeHandshake on one end, and a peer that uses OpenSSL's public API on the other."""

    def __init__(self, pair: tuple[socket.socket, socket.socket], *, is_asked: bool = True) -> None:
        self.loop = Loop(Clock())
        self.near, self.far = pair
        self.outcome: list[HandshakeResult | TlsError | PeerDenied | str] = []
        self._stack = ExitStack()
        challenges = AcmeChallenges()
        if is_asked:
            self._stack.enter_context(challenges.present(NAME, Presented(ANSWER.chain, ANSWER.leaf.key)))
        buffers = Buffers()
        handshakes = HandshakeSlots(HandshakeTurns(self.loop), buffers)
        self.handshake = AcmeHandshake(handshakes, self, self.near, partial(MAIN.open_end, buffers), challenges=challenges)
        self.handshake.start()

    def step_done(self, result: object) -> None:
        assert isinstance(result, HandshakeResult)
        self._end(result)

    def step_failed(self, error: Exception, final_data: bytes = b"") -> None:
        if isinstance(error, AcmeChallengeAnswered):
            self._end("probed", final_data)
        elif isinstance(error, ClosedWithoutData):
            self._end("closed without data")
        else:
            assert isinstance(error, TlsError | PeerDenied)
            self._end(error, final_data)

    def _end(self, outcome: HandshakeResult | TlsError | PeerDenied | str, final_data: bytes = b"") -> None:
        self.outcome.append(outcome)
        self.far_gets = final_data
        self.loop.unwatch(self.near)

    def crashed(self, crash: Exception) -> None:
        raise crash

    def meet(
        self,
        version: int,
        *,
        name: str = NAME,
        offers: tuple[bytes, ...] = (b"acme-tls/1",),
        who: Identity | None = None,
        size: int = 1 << 20,
    ) -> PublicPeer:
        """Exchange flights in pieces of `size` bytes until neither side has more."""
        made = public_context(who, version=version)
        if offers:
            made.set_alpn_protos(list(offers))
        peer = PublicPeer(made, is_server=False)
        if name:
            peer.connection.set_tlsext_host_name(name.encode())
        flight = peer.shake()
        for _ in range(6):
            for at in range(0, len(flight), size):
                self.far.sendall(flight[at : at + size])
                self.loop.turn(0)
                self.loop.turn(0)
            answer = received(self.far)
            if self.outcome:
                answer, self.far_gets = answer + self.far_gets, b""
            flight = peer.shake(answer)
            if peer.error:
                break
        return peer

    def close(self) -> None:
        self._stack.close()
        self.loop.close()
        self.near.close()
        self.far.close()


@pytest.fixture
def exchanges() -> Iterator[list[AcmeExchange]]:
    made: list[AcmeExchange] = []
    yield made
    for exchange in made:
        exchange.close()


def open_door(exchanges: list[AcmeExchange], *, is_unix: bool = False, is_asked: bool = True) -> AcmeExchange:
    exchanges.append(AcmeExchange(unix_pair() if is_unix else tcp_pair(), is_asked=is_asked))
    return exchanges[-1]


def shown(peer: PublicPeer) -> x509.Certificate:
    certificate = peer.connection.get_peer_certificate()
    assert certificate is not None
    return certificate.to_cryptography()


@BOTH_VERSIONS
@pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("size", [1 << 20, 1, 7])
def test_a_probe_gets_its_answer_without_a_certificate_of_its_own(
    exchanges: list[AcmeExchange], version: int, is_unix: bool, size: int
) -> None:
    exchange = open_door(exchanges, is_unix=is_unix)
    peer = exchange.meet(version, size=size)
    assert peer.is_done, peer.error
    assert shown(peer) == ANSWER.leaf.built
    assert exchange.outcome == ["probed"]


@BOTH_VERSIONS
@pytest.mark.parametrize("offers", [(), (b"h2",), (b"h2", b"acme-tls/1")])
def test_whoever_is_no_probe_must_still_show_a_certificate(
    exchanges: list[AcmeExchange], version: int, offers: tuple[bytes, ...]
) -> None:
    exchange = open_door(exchanges)
    exchange.meet(version, offers=offers)
    (outcome,) = exchange.outcome
    assert isinstance(outcome, TlsError | PeerDenied)


@BOTH_VERSIONS
def test_a_probe_that_nobody_expects_must_show_a_certificate(exchanges: list[AcmeExchange], version: int) -> None:
    exchange = open_door(exchanges, is_asked=False)
    exchange.meet(version)
    (outcome,) = exchange.outcome
    assert isinstance(outcome, PeerDenied)


@BOTH_VERSIONS
@pytest.mark.parametrize("size", [1 << 20, 1])
@pytest.mark.parametrize("name", ["", NAME])
def test_a_peer_without_protocols_is_admitted_by_its_certificate(
    exchanges: list[AcmeExchange], version: int, size: int, name: str
) -> None:
    exchange = open_door(exchanges)
    peer = exchange.meet(version, offers=(), who=PEER, name=name, size=size)
    (outcome,) = exchange.outcome
    assert isinstance(outcome, HandshakeResult)
    assert shown(peer) == OURS.leaf.built


@BOTH_VERSIONS
def test_an_admitted_peer_that_speaks_acme_is_not_carried(exchanges: list[AcmeExchange], version: int) -> None:
    exchange = open_door(exchanges)
    peer = exchange.meet(version, offers=(b"h2", b"acme-tls/1"), who=PEER)
    assert exchange.outcome == ["probed"]
    assert shown(peer) == OURS.leaf.built


@BOTH_VERSIONS
def test_an_admitted_peer_with_other_protocols_gets_no_application_protocol(
    exchanges: list[AcmeExchange], version: int
) -> None:
    exchange = open_door(exchanges)
    peer = exchange.meet(version, offers=(b"h2",), who=PEER)
    assert "no application protocol" in peer.error


@pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\3\1\0\4\1\0\xff\xff", b"\x15\3\1\0\2\2\x28"])
def test_invalid_data_is_refused_by_openssl(exchanges: list[AcmeExchange], is_unix: bool, data: bytes) -> None:
    exchange = open_door(exchanges, is_unix=is_unix)
    exchange.far.sendall(data)
    exchange.far.shutdown(socket.SHUT_WR)
    for _ in range(4):
        exchange.loop.turn(0)
    (outcome,) = exchange.outcome
    assert isinstance(outcome, TlsError)
    assert outcome.reason in (TlsFault.PROTOCOL, TlsFault.REFUSED, TlsFault.CLOSED)


def test_a_stranger_with_a_certificate_is_denied_as_before(exchanges: list[AcmeExchange]) -> None:
    exchange = open_door(exchanges)
    exchange.meet(VERSIONS["tls13"], offers=(), who=identity("spiffe://b.test/stranger"))
    (outcome,) = exchange.outcome
    assert isinstance(outcome, PeerDenied)
    assert outcome.reason is Denial.UNKNOWN_TRUST_DOMAIN


def test_a_silent_visitor_is_silent(exchanges: list[AcmeExchange]) -> None:
    exchange = open_door(exchanges)
    exchange.far.close()
    exchange.loop.turn(0)
    assert exchange.outcome == ["closed without data"]
