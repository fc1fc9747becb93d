"""Certificate policies along a path: they count once an authority requires one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from tests.support.odd_certificates.factory import INHIBIT_ANY, POLICIES, POLICY_CONSTRAINTS, POLICY_MAPPINGS, Made, Names
from tests.support.odd_certificates.raw_der import extension, implicit, integer, oid, seq
from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.certificate import parse_certificate
from tunnel.pkix.policies import check_policies

NAMES = Names("policies")
ANY, ONE, OTHER = "2.5.29.32.0", "1.2.3.4", "1.2.3.5"
REQUIRED = extension(POLICY_CONSTRAINTS, seq(implicit(0, b"\0")), True)


def policies(*names: str) -> bytes:
    return extension(POLICIES, seq(*(seq(oid(name)) for name in names)))


def mapping(source: str, target: str) -> bytes:
    return extension(POLICY_MAPPINGS, seq(seq(oid(source), oid(target))), True)


NO_MAPPING = extension(POLICY_CONSTRAINTS, seq(implicit(0, b"\0"), implicit(1, b"\0")), True)
NO_ANY = extension(INHIBIT_ANY, integer(0), True)
PATHS: dict[str, tuple[tuple[bytes, ...], tuple[bytes, ...], bool]] = {  # extensions of the intermediate and of the leaf
    "none is required": ((), (), True),
    "the same": ((REQUIRED, policies(ONE)), (policies(ONE),), True),
    "none": ((REQUIRED, policies(ONE)), (), False),
    "another": ((REQUIRED, policies(ONE)), (policies(OTHER),), False),
    "any for the leaf": ((REQUIRED, policies(ONE)), (policies(ANY),), True),
    "any for the intermediate": ((REQUIRED, policies(ANY)), (policies(OTHER),), True),
    "any where it is inhibited": ((REQUIRED, NO_ANY, policies(ONE)), (policies(ANY),), False),
    "mapped": ((REQUIRED, policies(ONE), mapping(ONE, OTHER)), (policies(OTHER),), True),
    "mapped away": ((REQUIRED, policies(ONE), mapping(ONE, OTHER)), (policies(ONE),), False),
    "mapped where it is inhibited later": ((NO_MAPPING, policies(ONE), mapping(ONE, OTHER)), (policies(OTHER),), True),
    "mapped from any": ((REQUIRED, policies(ANY), mapping(ANY, OTHER)), (policies(OTHER),), False),
    "mapped to any": ((REQUIRED, policies(ONE), mapping(ONE, ANY)), (policies(ANY),), False),
    "required by the leaf": ((policies(ONE),), (REQUIRED,), False),
}


def more(*extensions: bytes) -> dict[str, Any]:
    return {"more": extensions}


@pytest.mark.parametrize(("middle", "leaf", "is_good"), PATHS.values(), ids=PATHS)
def test_a_required_policy_holds_for_the_whole_path(middle: tuple[bytes, ...], leaf: tuple[bytes, ...], is_good: bool) -> None:
    root = NAMES.root()
    between: Made = NAMES.middle(root, **more(*middle))
    path = [parse_certificate(one.der) for one in (NAMES.leaf(between, **more(*leaf)), between, root)]
    with nullcontext() if is_good else pytest.raises(PeerDenied) as refused:
        check_policies(path)
    assert is_good or refused.value.reason is Denial.BAD_PATH


def test_where_a_self_issued_intermediate_follows_any_counts_though_it_is_inhibited() -> None:
    """RFC 5280, 6.1.3 d 2."""
    root = NAMES.root()
    upper = NAMES.middle(root, **more(REQUIRED, NO_ANY, policies(ONE)))
    lower = NAMES.middle(upper, **more(policies(ANY)))  # of the same name
    leaf = NAMES.leaf(lower, **more(policies(ONE)))
    check_policies([parse_certificate(one.der) for one in (leaf, lower, upper, root)])
