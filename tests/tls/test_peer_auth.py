"""Peers are admitted in a handshake of ours and by the context of the time, and in no other way."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.cert_factory import key_of
from tests.support.tls_ends import (
    TLS12,
    TLS13,
    PublicPeer,
    Side,
    admission,
    as_public,
    context,
    identity,
    lasting_authority,
    public_context,
    shake_hands,
)
from tunnel.authz.authorizer import Admitted
from tunnel.authz.rules import AnyRule, SourceRule
from tunnel.errors import Denial, IdentityError, IdentityFault, PeerDenied
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.openssl import lib
from tunnel.tls.peer_auth import PeerAuth

ROOT = lasting_authority()
WHO = identity(root=ROOT)
PRESENTED = Presented(WHO.chain, WHO.leaf.key)
EVERYONE = Admitted(None, "disable-authentication")


def test_a_handshake_that_is_not_ours_admits_no_peer() -> None:
    """The context knows which connection it decides about; without one it refuses."""
    ours = TlsContext(PRESENTED, PeerAuth(admission(ROOT)), is_server=True)
    server = PublicPeer(as_public(ours), is_server=True)
    client = PublicPeer(public_context(WHO), is_server=False)
    server.shake(client.shake(server.shake(client.shake())))
    assert server.error == "certificate verify failed"
    assert not server.is_done


def test_a_key_can_be_presented_encoded() -> None:
    encoded = WHO.leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    side = Side(TlsContext(Presented(WHO.chain, encoded), PeerAuth(admission(ROOT)), is_server=True))
    shake_hands(PublicPeer(public_context(WHO), is_server=False), side)
    assert side.end.admitted is not None


@pytest.mark.parametrize("key", [b"", b"no key", key_of("p256", 7)])
def test_a_key_that_is_none_or_another_one_cannot_be_presented(key: Any) -> None:
    with pytest.raises(IdentityError) as failure:
        TlsContext(Presented(WHO.chain, key), PeerAuth(admission(ROOT)), is_server=True)
    assert failure.value.reason is IdentityFault.BAD_CERTIFICATE


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


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_the_source_of_a_connection_reaches_the_access_rules(version: int) -> None:
    """In the handshake and in every later decision, also by a context that is the first to have such a rule."""
    inside = SourceRule((ip_network("10.0.0.0/8"),))
    ours, later = (context(WHO, admission(ROOT, rule=rule), is_server=True, version=version) for rule in (AnyRule(), inside))
    for source, is_admitted in (("tcp:10.1.2.3:4", True), ("tcp:192.0.2.1:4", False), ("", False)):
        side, peer = Side(ours), PublicPeer(public_context(WHO, version=version), is_server=False)
        side.end = ours.open_end(side.buffers, source=source)
        shake_hands(peer, side)
        assert is_admitted_by(later, side) is is_admitted
        side, peer = Side(later), PublicPeer(public_context(WHO, version=version), is_server=False)
        side.end = later.open_end(side.buffers, source=source)
        if is_admitted:
            shake_hands(peer, side)
        else:
            with pytest.raises(PeerDenied, match="no-matching-rule"):
                shake_hands(peer, side)


@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_openssl_checks_no_signature_of_a_certificate(version: int, we_serve: bool) -> None:
    """Its path ends at the leaf, whatever the peer has sent: the verdict is ours, and may be remembered."""
    who = identity(root=ROOT, middles=1)
    peer = public_context(who, version=version)
    peer.add_extra_chain_cert(ROOT.built)
    side = Side(context(WHO, admission(ROOT), is_server=we_serve, version=version))
    shake_hands(PublicPeer(peer, is_server=not we_serve), side)
    assert side.end.admitted is not None
    assert len(side.end.admitted.sent.chain) == 3
    assert lib.sk_X509_num(lib.SSL_get0_verified_chain(side.end._ssl)) == 1


def is_admitted_by(by: TlsContext, side: Side) -> bool:
    try:
        by.readmit(side.end)
    except PeerDenied:
        return False
    return True
