"""Open connections of revoked certificates are closed by the list that revokes them, also after the certificate has expired."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.cert_factory import MadeCertificate
from tests.support.revocation_lists import make_list
from tests.support.socket_pairs import is_over, received
from tests.support.tls_ends import EARLY, LATE, Identity, identity, lasting_authority
from tests.support.tunnel_harness import ANYONE, HOME, OURS, PEER, ROOT, Harnesses, Peer, TunnelHarness, carried, dialled
from tunnel.config.model import Access
from tunnel.identity.credentials import SvidCredentials, X509Svid
from tunnel.listener.generation import Generation, GenerationConfig, build_generation
from tunnel.pkix.crl import RevocationList
from tunnel.pkix.revocation import RevocationLists
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import parse_spiffe_id

OTHER = identity("spiffe://a.test/other", root=ROOT)
CHAINED = identity("spiffe://a.test/chained", root=ROOT, middles=1)
END = datetime(2090, 1, 1, tzinfo=UTC)
MORTAL = identity("spiffe://a.test/mortal", root=ROOT, end=END)
ROLES = pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])


def listing(*revoked: MadeCertificate, issuer: MadeCertificate = ROOT, **dates: datetime) -> RevocationList:
    return make_list(issuer, *(one.certificate.serial_number for one in revoked), **({"begin": EARLY, "end": LATE} | dates))


def generation(number: int, *lists: RevocationList, is_server: bool = True, **requirements: Any) -> Generation:
    svid = X509Svid(parse_spiffe_id("spiffe://a.test/ours"), "", OURS.chain, OURS.leaf.key, LATE)
    bundles = BundleSet({HOME: TrustBundle(HOME, (ROOT.certificate,))})
    credentials = SvidCredentials(svid, bundles, RevocationLists(lists, **requirements))
    return build_generation(number, credentials, GenerationConfig(is_server, Access(ANYONE)))


def opened(harness: TunnelHarness, who: Identity) -> tuple[Peer, socket.socket]:
    if harness.is_server:
        return carried(harness, who=who)
    program, peer = dialled(harness, who=who)
    return peer.shake(), program


def is_alive(harness: TunnelHarness, peer: Peer, plain: socket.socket) -> bool:
    peer.say(b"up")
    return received(plain) == b"up"


@ROLES
@pytest.mark.parametrize("before", [(), (listing(),)], ids=["no list before", "list replaced"])
def test_a_peer_whose_certificate_is_revoked_is_cut_and_its_neighbour_is_not(
    harnesses: Harnesses, is_server: bool, before: tuple[RevocationList, ...]
) -> None:
    harness = harnesses(is_server=is_server)
    harness.tunnel.swap(generation(1, *before, is_server=is_server))
    harness.accept()
    revoked, neighbour = opened(harness, PEER), opened(harness, OTHER)
    harness.tunnel.swap(generation(2, listing(PEER.leaf), is_server=is_server))
    harness.turn()
    assert is_over(revoked[1])
    assert is_alive(harness, *neighbour)
    assert harness.tunnel.counters.withdrawals == {"revoked": 1}


def test_a_peer_whose_intermediate_is_revoked_is_cut(harnesses: Harnesses) -> None:
    harness = harnesses()
    harness.tunnel.swap(generation(1))
    harness.accept()
    _, plain = opened(harness, CHAINED)
    harness.tunnel.swap(generation(2, listing(*CHAINED.middles)))
    harness.turn()
    assert is_over(plain)
    assert harness.tunnel.counters.withdrawals == {"revoked": 1}


def test_the_serial_number_of_another_issuer_revokes_nobody(harnesses: Harnesses) -> None:
    harness = harnesses()
    harness.tunnel.swap(generation(1))
    harness.accept()
    session = opened(harness, PEER)
    stranger = lasting_authority("b.test", subject="stranger")
    harness.tunnel.swap(generation(2, listing(), listing(PEER.leaf, issuer=stranger)))
    harness.turn()
    assert is_alive(harness, *session)


def test_revoked_peers_are_cut_before_the_paths_of_others_are_verified(
    harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = harnesses()
    harness.tunnel.swap(generation(1))
    harness.accept()
    for who in (OTHER, CHAINED, PEER, MORTAL):
        opened(harness, who)
    judged = generation(2, listing(PEER.leaf))
    assert judged.admission is not None
    verified: list[bytes] = []
    verify = judged.admission._verify
    monkeypatch.setattr(judged.admission, "_verify", lambda path, *times: verified.append(path[0]) or verify(path, *times))
    harness.tunnel.swap(judged)
    harness.turn()
    assert len(verified) == 4
    assert verified[0] == PEER.leaf.certificate.der


def test_a_missing_list_is_no_admission_if_every_issuer_needs_one(harnesses: Harnesses) -> None:
    harness = harnesses()
    harness.tunnel.swap(generation(1))
    harness.accept()
    _, plain = opened(harness, PEER)
    harness.tunnel.swap(generation(2, is_complete=True))
    harness.turn()
    assert is_over(plain)
    assert harness.tunnel.counters.withdrawals == {"no-revocation-list": 1}


@pytest.mark.parametrize("is_revoked", [True, False])
def test_a_list_that_is_newer_than_an_expired_certificate_counts(harnesses: Harnesses, is_revoked: bool) -> None:
    """Dates of certificates are judged at the end of the certificate, those of lists now."""
    soon = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    harness = harnesses()
    harness.tunnel.swap(generation(1))
    harness.accept()
    session = opened(harness, MORTAL)
    harness.tunnel.withdrawal._time_of = lambda _admitted: soon.timestamp() - 3600  # type: ignore[method-assign]
    harness.tunnel.swap(generation(2, listing(*([MORTAL.leaf] if is_revoked else []), begin=soon)))
    harness.turn()
    assert is_over(session[1]) == is_revoked
    assert harness.tunnel.counters.withdrawals == ({"revoked": 1} if is_revoked else {})
