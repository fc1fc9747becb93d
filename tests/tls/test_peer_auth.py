"""Peers are admitted in a handshake of ours and by the context of the time, and in no other way."""

from __future__ import annotations

import pytest

from tests.support.cert_factory import key_of
from tests.support.tls_ends import PublicPeer, Side, admission, identity, lasting_authority, public_context, shake_hands
from tunnel.authz.authorizer import Admitted
from tunnel.errors import Denial, PeerDenied
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.peer_auth import PeerAuth

ROOT = lasting_authority()
WHO = identity(root=ROOT)
PRESENTED = Presented(WHO.chain, WHO.leaf.key)
EVERYONE = Admitted(None, "disable-authentication")


def test_a_handshake_that_is_not_ours_admits_no_peer() -> None:
    """The context knows which connection it decides about; without one it refuses."""
    ours = TlsContext(PRESENTED, PeerAuth(admission(ROOT)), is_server=True)
    server = PublicPeer(ours._peer_auth.context, is_server=True)
    client = PublicPeer(public_context(WHO), is_server=False)
    server.shake(client.shake(server.shake(client.shake())))
    assert server.error == "certificate verify failed"
    assert not server.is_done


def test_a_peer_without_a_certificate_is_refused_once_one_is_required() -> None:
    anonymous = TlsContext(PRESENTED, EVERYONE, is_server=True)
    side = Side(anonymous)
    shake_hands(PublicPeer(public_context(), is_server=False), side)
    with pytest.raises(PeerDenied) as refused:
        TlsContext(PRESENTED, PeerAuth(admission(ROOT)), is_server=True).readmit(side.end)
    assert refused.value.reason is Denial.NO_CERTIFICATE


def test_a_peer_is_admitted_once_no_certificate_is_required() -> None:
    side = Side(TlsContext(PRESENTED, PeerAuth(admission(ROOT)), is_server=True))
    shake_hands(PublicPeer(public_context(WHO), is_server=False), side)
    assert TlsContext(PRESENTED, EVERYONE, is_server=True).readmit(side.end) is EVERYONE


def test_a_peer_is_admitted_again_by_its_certificates() -> None:
    ours = TlsContext(PRESENTED, PeerAuth(admission(ROOT)), is_server=True)
    side = Side(ours)
    shake_hands(PublicPeer(public_context(WHO), is_server=False), side)
    assert ours.readmit(side.end) == side.end.admitted
    with pytest.raises(PeerDenied) as refused:
        TlsContext(PRESENTED, PeerAuth(admission(lasting_authority(key=key_of("p256", 77)))), is_server=True).readmit(side.end)
    assert refused.value.reason is Denial.UNKNOWN_AUTHORITY
