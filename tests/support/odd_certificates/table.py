"""All cases of the table, and their chains, each made once."""

from __future__ import annotations

from functools import cache

from tests.support.odd_certificates.cases import OK, REFUSED, Case
from tests.support.odd_certificates.certificate_cases import CERTIFICATES
from tests.support.odd_certificates.constraint_cases import CONSTRAINTS
from tests.support.odd_certificates.factory import HOST, Chain
from tests.support.odd_certificates.path_cases import PATHS
from tests.support.odd_certificates.verifiers import judge

CASES = [*PATHS.cases, *CERTIFICATES.cases, *CONSTRAINTS.cases]


@cache
def chain_of(case: Case) -> Chain:
    return case.chain()


def is_expected(case: Case, role: str) -> bool:
    """Whether our verifier's verdict in a role is that of the table."""
    chain, expected = chain_of(case), getattr(case, role)
    got = judge(role, [one.der for one in chain.anchors], [one.der for one in chain.sent], HOST)
    return got != OK if expected == REFUSED else bool(got == expected)
