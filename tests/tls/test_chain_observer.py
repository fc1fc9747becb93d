"""The chain observer gets the certificates of every peer, admitted or refused."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from tests.support.tls_ends import (
    EARLY,
    Identity,
    PublicPeer,
    Side,
    admission,
    identity,
    lasting_authority,
    public_context,
    shake_hands,
)
from tunnel.errors import PeerDenied
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.peer_auth import PeerAuth

ROOT = lasting_authority()
PEERS = {
    "admitted": identity(root=ROOT, middles=1),
    "denied by us": identity("spiffe://b.test/w"),
    "refused by OpenSSL before": identity(root=ROOT, end=EARLY + timedelta(days=1)),
}


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
def test_the_chain_observer_gets_the_certificates_of_every_peer(peer: Identity, we_serve: bool) -> None:
    seen: list[tuple[bytes, ...]] = []
    who = identity(root=ROOT)
    peer_auth = PeerAuth(admission(ROOT), chain_observer=seen.append)
    ours = Side(TlsContext(Presented(who.chain, who.leaf.key), peer_auth, is_server=we_serve))
    other = PublicPeer(public_context(peer), is_server=not we_serve)
    with suppress(PeerDenied):
        shake_hands(*((other, ours) if we_serve else (ours, other)))
    assert (ours.end.admitted is not None) is (peer is PEERS["admitted"])
    assert seen[-1][0] == peer.leaf.der
    assert seen[-1][1 : 1 + len(peer.middles)] == tuple(middle.der for middle in peer.middles)
