"""Revocation lists in the verification of a peer: of which certificates, until when, and with which alert."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.cert_factory import BOTH_SIDES, END, NOW, MadeCertificate, authority, key_of, leaf
from tests.support.revocation_lists import make_list
from tests.support.tls_ends import PublicPeer, Side, identity, lasting_authority, public_context, shake_hands
from tunnel.authz.authorizer import Authorizer
from tunnel.authz.rules import AnyRule
from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.extensions import CLIENT_AUTH
from tunnel.pkix.revocation import NO_LISTS, RevocationLists
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain
from tunnel.tls.admission import PeerAdmission
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.peer_auth import PeerAuth
from tunnel.tls.verify import PkiVerifier, SpiffeVerifier, Verifier, build_pki_anchors

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
DOMAIN = TrustDomain("a.test")
ROOT = authority(key=key_of("p256", 520), end=END + DAY)
MIDDLE = authority(subject="middle", issuer=ROOT, key=key_of("p256", 521), end=END + DAY)
WORKER = leaf(issuer=MIDDLE, purposes=BOTH_SIDES, end=END + DAY)
OPEN = make_list(ROOT), make_list(MIDDLE)  # nothing is revoked


def serial(made: MadeCertificate) -> int:
    return made.certificate.serial_number


def spiffe(lists: RevocationLists, *anchors: MadeCertificate, **more: Any) -> Verifier:
    bundle = TrustBundle(DOMAIN, tuple(one.certificate for one in anchors or (ROOT,)))
    return SpiffeVerifier(BundleSet({DOMAIN: bundle}), lists, **more)


def pki(lists: RevocationLists, *anchors: MadeCertificate, **more: Any) -> Verifier:
    authorities = [one.certificate for one in anchors or (ROOT,)]
    return PkiVerifier(build_pki_anchors(authorities), CLIENT_AUTH, revocation=lists, **more)


MODES = pytest.mark.parametrize("mode", [spiffe, pki])
Mode = Callable[..., Verifier]


def denial(verifier: Verifier, *sent: MadeCertificate, now: datetime = NOW) -> Denial | None:
    try:
        verifier.verify([one.certificate for one in sent], now)
    except PeerDenied as denied:
        return denied.reason
    return None


@MODES
@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (OPEN, None),
        ((OPEN[0], make_list(MIDDLE, serial(WORKER))), Denial.REVOKED),
        ((make_list(ROOT, serial(MIDDLE)), OPEN[1]), Denial.REVOKED),
        ((make_list(ROOT, serial(ROOT)), OPEN[1]), None),
        ((OPEN[0],), Denial.NO_REVOCATION_LIST),
        ((OPEN[1],), Denial.NO_REVOCATION_LIST),
        ((), Denial.NO_REVOCATION_LIST),
    ],
    ids=["none", "leaf", "intermediate", "anchor", "no-list-of-intermediate", "no-list-of-anchor", "no-list"],
)
def test_every_certificate_below_the_anchor_is_checked(mode: Mode, lists: tuple, expected: Denial | None) -> None:
    assert denial(mode(RevocationLists(lists, is_complete=True)), WORKER, MIDDLE) is expected


@MODES
def test_a_refusal_names_the_certificate(mode: Mode) -> None:
    lists = RevocationLists((make_list(ROOT, serial(MIDDLE)), OPEN[1]))
    with pytest.raises(PeerDenied) as refused:
        mode(lists).verify([WORKER.certificate, MIDDLE.certificate], NOW)
    assert str(refused.value) == (
        f"revoked: certificate 2 of the path (subject 'CN=middle', serial {serial(MIDDLE):X}): "
        "on the revocation list that 'CN=authority of a.test' issued at 2026-11-22T11:00:00Z"
    )


@MODES
def test_another_path_without_a_revoked_certificate_is_used(mode: Mode) -> None:
    renewed = authority(subject="middle", issuer=ROOT, key=key_of("p256", 521))
    lists = RevocationLists((make_list(ROOT, serial(MIDDLE)), OPEN[1]), is_complete=True)
    assert denial(mode(lists), WORKER, MIDDLE, renewed) is None
    assert denial(mode(lists), WORKER, MIDDLE) is Denial.REVOKED


def test_a_leaf_that_is_itself_trusted_is_not_checked() -> None:
    lists = RevocationLists((make_list(MIDDLE, serial(WORKER)),), is_complete=True)
    assert denial(pki(lists, WORKER), WORKER) is None


@MODES
def test_a_verdict_lasts_until_a_list_expires(mode: Mode) -> None:
    lists = make_list(ROOT, end=NOW + 2 * SECOND), make_list(MIDDLE, end=NOW + SECOND)
    sent = [WORKER.certificate, MIDDLE.certificate]
    assert mode(RevocationLists(lists)).verify(sent, NOW).not_after == NOW + SECOND
    assert mode(NO_LISTS).verify(sent, NOW).not_after == END + DAY


@MODES
def test_a_cached_admission_ends_with_the_list(mode: Mode) -> None:
    now = [NOW]
    lists = RevocationLists((make_list(ROOT), make_list(MIDDLE, end=NOW + SECOND)))
    admission = PeerAdmission(mode(lists), Authorizer((AnyRule(),), None), lambda: now[0].timestamp())
    admission(b"", lambda: (WORKER.der, MIDDLE.der))
    now[0] = NOW + SECOND
    admission(b"", lambda: ())  # from the cache
    now[0] = NOW + 2 * SECOND
    with pytest.raises(PeerDenied) as refused:
        admission(b"", lambda: (WORKER.der, MIDDLE.der))
    assert refused.value.reason is Denial.NO_REVOCATION_LIST


@MODES
def test_a_warning_names_what_is_missing_once(mode: Mode) -> None:
    seen: list[str] = []
    lists = RevocationLists((OPEN[0],), is_required=False, is_complete=True)
    verifier = mode(lists, warn=seen.append)
    for _ in range(3):
        verifier.verify([WORKER.certificate, MIDDLE.certificate], NOW)
    assert seen == ["certificate accepted without a valid revocation list: no revocation list of 'CN=middle'"]


def test_a_revoked_client_is_told_by_the_alert_certificate_revoked() -> None:
    root = lasting_authority()
    who = identity(root=root)
    lists = RevocationLists((make_list(root, serial(who.leaf)),))
    admission = PeerAdmission(spiffe(lists, root), Authorizer((AnyRule(),), DOMAIN), NOW.timestamp)
    side = Side(TlsContext(Presented(who.chain, who.leaf.key), PeerAuth(admission), is_server=True))
    client = PublicPeer(public_context(who), is_server=False)
    with pytest.raises(PeerDenied) as refused:
        shake_hands(client, side)
    assert refused.value.reason is Denial.REVOKED
    client.shake(side.end.take())
    assert client.error.endswith("certificate revoked")
