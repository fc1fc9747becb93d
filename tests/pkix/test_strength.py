"""A signature is checked by the kind of key that its algorithm names, and by no other."""

from __future__ import annotations

import pytest

from tests.support.odd_certificates.factory import Made, Names
from tests.support.odd_certificates.keys import Scheme, key
from tests.support.odd_certificates.raw_der import integer, oid
from tunnel.errors import Denial, PeerDenied
from tunnel.lazy_dataclass import replace
from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.pkix.strength import check_signature, check_signature_strength

NAMES = Names("signatures")
SCHEMES = {  # the algorithm of a signature, its key, and a key of another kind
    "RSASSA-PKCS1": ("rsa2048", Scheme(), "p256"),
    "RSASSA-PSS": ("rsa2048", Scheme(is_pss=True), "ed25519"),
    "ECDSA": ("p256", Scheme(), "rsa2048"),
    "Ed25519": ("ed25519", Scheme(), "p256"),
}


def parsed(made: Made) -> Certificate:
    return parse_certificate(made.der)


@pytest.mark.parametrize(("kind", "scheme", "other"), SCHEMES.values(), ids=SCHEMES)
def test_a_signature_is_of_the_key_that_its_algorithm_is_for(kind: str, scheme: Scheme, other: str) -> None:
    root = NAMES.root(key=key(kind))
    signed = parsed(NAMES.leaf(root, scheme=scheme))
    check_signature(signed, parsed(root))
    with pytest.raises(PeerDenied) as refused:
        check_signature(signed, parsed(NAMES.root(key=key(other))))
    assert refused.value.reason is Denial.UNKNOWN_AUTHORITY


def test_a_signature_by_rsassa_pss_has_one_digest_for_the_data_and_the_mask() -> None:
    made = parsed(NAMES.leaf(NAMES.root(key=key("rsa2048")), scheme=Scheme(is_pss=True)))
    check_signature_strength(made)
    sha256, sha384 = (oid(f"2.16.840.1.101.3.4.2.{number}") for number in (1, 2))
    before, _, after = made.algorithm.parameters.rpartition(sha256)
    mixed = replace(made, algorithm=replace(made.algorithm, parameters=before + sha384 + after))
    with pytest.raises(PeerDenied) as refused:
        check_signature_strength(mixed)
    assert refused.value.reason is Denial.WEAK_SIGNATURE


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "ed25519"])
def test_an_algorithm_with_odd_parameters_is_not_strong(kind: str) -> None:
    made = parsed(NAMES.leaf(NAMES.root(key=key(kind)), scheme=Scheme(parameters=integer(1))))
    with pytest.raises(PeerDenied) as refused:
        check_signature_strength(made)
    assert refused.value.reason is Denial.WEAK_SIGNATURE
