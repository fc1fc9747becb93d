"""Name constraints: the cost of a comparison is bounded, and a name is compared though a part of it is odd."""

from __future__ import annotations

import pytest

from tests.support.odd_certificates.factory import NAME_CONSTRAINTS, SAN, Names, directory, dns, ip, name_constraints, san
from tests.support.odd_certificates.raw_der import CN, OU, UTF8, VISIBLE, attribute, name
from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.pkix.constraints import _MOST_COMPARISONS, check_name_constraints

NAMES = Names("constraints")
ODD = attribute(OU, UTF8, b"\xff")  # text that cannot be decoded


def path_of(constraints: bytes, **leaf: object) -> list[Certificate]:
    """A leaf, and an authority with constraints."""
    root = NAMES.root(replace={NAME_CONSTRAINTS: constraints})
    return [parse_certificate(one.der) for one in (NAMES.leaf(root, **leaf), root)]


def test_the_number_of_name_comparisons_is_bounded() -> None:
    hosts = [dns(f"{number}.test") for number in range(400)]
    limits = [dns(f"{number}.example") for number in range(_MOST_COMPARISONS // len(hosts) + 1)]
    with pytest.raises(PeerDenied, match="too many comparisons") as refused:
        check_name_constraints(path_of(name_constraints(excluded=limits), replace={SAN: san(*hosts)}), 1)
    assert refused.value.reason is Denial.BAD_PATH
    check_name_constraints(path_of(name_constraints(excluded=limits[:10]), replace={SAN: san(*hosts)}), 1)


@pytest.mark.parametrize(
    ("constraint", "name"),
    [(dns("a.test"), dns("not a host")), (ip(bytes(8)), ip(bytes(5)))],
    ids=["DNS name", "IP address"],
)
def test_a_name_that_cannot_be_compared_is_refused(constraint: bytes, name: bytes) -> None:
    with pytest.raises(PeerDenied) as refused:
        check_name_constraints(path_of(name_constraints(excluded=[constraint]), replace={SAN: san(name)}), 1)
    assert refused.value.reason is Denial.UNREADABLE


def test_an_attribute_that_cannot_be_decoded_is_compared_byte_by_byte() -> None:
    inside, outside = name(ODD, attribute(CN, UTF8, b"w")), name(attribute(OU, VISIBLE, b"\xff"))
    permitted = name_constraints([directory(name(ODD))])
    check_name_constraints(path_of(permitted, subject=inside), 1)
    with pytest.raises(PeerDenied) as refused:
        check_name_constraints(path_of(permitted, subject=outside), 1)
    assert refused.value.reason is Denial.BAD_PATH
