"""The size limit of a peer's certificates, and of the authority names that a server sends."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509

from tests.support.cert_factory import key_of, make_certificate
from tests.support.tls_ends import (
    EARLY,
    LATE,
    VERSIONS,
    Identity,
    PublicPeer,
    Side,
    admit_all,
    identity,
    public_context,
    shake_hands,
)
from tunnel.authz.authorizer import Authorizer
from tunnel.authz.rules import AnyRule
from tunnel.config.model import Access
from tunnel.errors import TlsError
from tunnel.identity.credentials import PkiCredentials
from tunnel.listener.generation import GenerationConfig, build_generation
from tunnel.pkix.extensions import CLIENT_AUTH
from tunnel.tls.admission import PeerAdmission
from tunnel.tls.context import MAX_CERTIFICATE_BYTES, Presented, TlsContext
from tunnel.tls.openssl import _LIMIT_AT
from tunnel.tls.peer_auth import AuthorityNames, PeerAuth, can_send_authority_names
from tunnel.tls.verify import PkiVerifier, build_pki_anchors

LASTING: dict[str, Any] = {"start": EARLY, "end": LATE}
OURS = identity()
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


def padded(size: int) -> Identity:
    """A leaf of about so many bytes."""
    blob = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.7"), b"\x04\x00" + bytes(size - 2))
    return identity(extra=((blob, False),))


@BOTH_VERSIONS
@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
@pytest.mark.parametrize(
    ("size", "is_taken"), [(120_000, True), (MAX_CERTIFICATE_BYTES - 1000, True), (MAX_CERTIFICATE_BYTES, False)]
)
def test_certificates_of_up_to_256_kib_are_taken_in_both_roles(size: int, is_taken: bool, we_serve: bool, version: int) -> None:
    assert _LIMIT_AT is not None, "this build of OpenSSL keeps its limit where it is not found"
    ours = Side(TlsContext(Presented(OURS.chain, OURS.leaf.key), PeerAuth(admit_all), is_server=we_serve))
    theirs = PublicPeer(public_context(padded(size), version=version), is_server=not we_serve)
    pair = (theirs, ours) if we_serve else (ours, theirs)
    if is_taken:
        shake_hands(*pair)
        assert ours.end.admitted is not None
    else:
        with pytest.raises(TlsError):
            shake_hands(*pair)


def named(number: int) -> Any:
    """An authority whose name has 100 bytes and more."""
    key = key_of("p256", number % 2)
    return make_certificate(is_ca=True, usage=("key_cert_sign",), subject=f"{number:04} {'authority ' * 5}", key=key, **LASTING)


@BOTH_VERSIONS
@pytest.mark.parametrize("count", [2, 1000])
def test_a_server_with_many_authorities_names_none_and_completes_handshakes(count: int, version: int) -> None:
    authorities = tuple(named(number).certificate for number in range(count))
    root = make_certificate(is_ca=True, usage=("key_cert_sign",), subject="root", key=key_of("p256", 20), **LASTING)
    anchors = build_pki_anchors((*authorities, root.certificate))
    admission = PeerAdmission(PkiVerifier(anchors, CLIENT_AUTH), Authorizer((AnyRule(),), None))
    ours = Side(
        TlsContext(Presented(OURS.chain, OURS.leaf.key), PeerAuth(admission, AuthorityNames(anchors.usable)), is_server=True)
    )
    worker = make_certificate(issuer=root, subject="worker", is_ca=None, usage=None, key=key_of("p256", 30), **LASTING)
    theirs = PublicPeer(public_context(Identity(worker, (), root), version=version), is_server=False)
    shake_hands(theirs, ours)
    assert ours.end.admitted is not None
    assert len(theirs.connection.get_client_ca_list()) == (count + 1 if count < 1000 else 0)


def test_a_warning_is_logged_if_a_server_names_no_authorities() -> None:
    many = PkiCredentials(OURS.chain, OURS.leaf.key, tuple(named(number).certificate for number in range(1000)))
    assert not can_send_authority_names(many.authorities)
    (note,) = build_generation(1, many, GenerationConfig(True, Access((AnyRule(),)))).warnings
    assert note.endswith(": no authority names are sent to clients")
    assert build_generation(1, many, GenerationConfig(False, Access((AnyRule(),)), host="db.test")).warnings == ()
    few = PkiCredentials(OURS.chain, OURS.leaf.key, many.authorities[:3])
    assert build_generation(1, few, GenerationConfig(True, Access((AnyRule(),)))).warnings == ()
