"""The cost of a peer's certificates, counted in signature checks and candidates, not in time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.cert_factory import NOW, MadeCertificate, authority, key_of, leaf
from tunnel.errors import Denial, PeerDenied
from tunnel.lazy_dataclass import replace
from tunnel.pkix import path as paths
from tunnel.pkix.path import (
    _MOST_ANCHOR_FAILURES,
    _MOST_ISSUER_FAILURES,
    _MOST_STEPS,
    MAX_SENT,
    Anchors,
    build_anchors,
    check_sent,
    find_path,
)

KEYS = [key_of("p256", 200 + number) for number in range(MAX_SENT)]


class Counted:
    """One search, and what it has looked at."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.signatures = self.issuers = 0
        real = paths.check_signature

        def check_signature(*given: Any) -> None:
            self.signatures += 1
            real(*given)

        patch.setattr(paths, "check_signature", check_signature)

    def refusal(self, anchors: Sequence[MadeCertificate], sent: Sequence[MadeCertificate]) -> Denial:
        with pytest.raises(PeerDenied) as refused:
            find_path(anchors_of(*anchors), [one.certificate for one in sent], NOW, self._check_issuer)
        return refused.value.reason

    def _check_issuer(self, *_: Any) -> None:
        self.issuers += 1


def anchors_of(*made: MadeCertificate) -> Anchors:
    return build_anchors([one.certificate for one in made], lambda _: None)


def named(subject: str, issuer: str, key: Any = None) -> MadeCertificate:
    """An authority whose issuer has a name, and a key that nobody trusts."""
    return authority(subject=subject, issuer=authority(subject=issuer, key=KEYS[0]), key=key or KEYS[1])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


ROOT = authority(subject="root", key=key_of("p256", 190))


def test_certificates_without_a_chain_of_names_cost_no_signature_check(counted: Counted) -> None:
    sent = [leaf(issuer=named("a", "b"), subject="w"), *(named("a", "b", key) for key in KEYS[1:50])]
    assert counted.refusal([ROOT], sent) is Denial.UNKNOWN_AUTHORITY
    assert (counted.signatures, counted.issuers) == (0, 0)


@pytest.mark.parametrize("namesakes", [1, 5])
def test_certificates_with_a_false_issuer_cost_a_bounded_number_of_checks(counted: Counted, namesakes: int) -> None:
    anchors = [ROOT, *(authority(subject="root", key=KEYS[90 - number]) for number in range(namesakes - 1))]
    sent = [leaf(issuer=named("a", "root"), subject="w"), *(named("a", "root", key) for key in KEYS[1:])]
    counted.refusal(anchors, sent)
    assert counted.signatures <= _MOST_ANCHOR_FAILURES + namesakes + 1


def test_many_genuine_intermediates_cost_a_bounded_number_of_checks(counted: Counted) -> None:
    middles = [authority(subject="a", issuer=ROOT, key=key) for key in KEYS[1:80]]
    stranger = MadeCertificate(named("a", "root").built, key_of("p256", 199))
    counted.refusal([ROOT], [leaf(issuer=stranger), *middles])
    assert counted.signatures <= 2 * (_MOST_ISSUER_FAILURES + 1)


@pytest.mark.parametrize("shape", ["layers", "circle"])
def test_a_graph_of_names_is_searched_to_a_limit(counted: Counted, shape: str) -> None:
    if shape == "layers":
        names = ["root", *(f"layer {number}" for number in range(9))]
        sent = [named(below, above, key) for above, below in pairwise(names) for key in KEYS[1:12]]
        first = names[-1]
    else:
        sent = [named(subject, issuer, key) for key in KEYS[1:48] for subject, issuer in (("a", "b"), ("b", "a"))]
        sent.append(named("b", "root", KEYS[60]))
        first = "a"
    counted.refusal([ROOT], [leaf(issuer=named(first, "x")), *sent])
    assert counted.issuers <= _MOST_STEPS
    assert counted.signatures <= _MOST_ANCHOR_FAILURES + 2


def test_a_key_that_is_too_large_is_refused_before_anything_else(counted: Counted) -> None:
    large = (
        rsa.RSAPublicNumbers(65537, (1 << 8199) + 1).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    sent = [leaf(issuer=ROOT).certificate, replace(authority(issuer=ROOT).certificate, key_info=large)]
    with pytest.raises(PeerDenied, match="RSA key of 8200 bits") as refused:
        check_sent(sent)
    assert (refused.value.reason, counted.signatures) == (Denial.WEAK_KEY, 0)


def test_the_issuer_that_a_certificate_names_by_its_serial_number_is_tried_first(counted: Counted) -> None:
    """Authorities of one name and without key identifiers, as a renewal leaves them; one signature is checked then."""
    anchors = [authority(subject="root", key=one, has_key_ids=False) for one in KEYS[:5]]
    for signer in anchors:
        hint = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(signer.built.subject)], signer.built.serial_number)
        worker = leaf(issuer=signer, has_key_ids=False, extra=[(hint, False)]).certificate
        counted.signatures = 0
        find_path(anchors_of(*anchors), [worker], NOW, lambda *_: None)
        assert counted.signatures == 1
