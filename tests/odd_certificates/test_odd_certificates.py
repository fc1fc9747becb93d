"""Odd certificates and chains: our verdict in every mode is that of the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.odd_certificates.cases import OK, ROLES, Case
from tests.support.odd_certificates.table import CASES, chain_of, is_expected
from tunnel.authz.peer import parse_peer
from tunnel.pkix.certificate import parse_certificate
from tunnel.pkix.der import MAX_VALUES
from tunnel.pkix.extensions import MAX_EXTENSIONS
from tunnel.pkix.path import MAX_PATH, MAX_SENT
from tunnel.pkix.strength import MAX_RSA_BITS, MIN_RSA_BITS

_ODD_SUBJECTS = [case for case in CASES if case.name.startswith("subject with ") and case.name.endswith(" in leaf")]
_DOCUMENT = Path(__file__).parents[2] / "docs/certificates.md"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_verdict_is_that_of_the_table(case: Case) -> None:
    assert [role for role in ROLES if not is_expected(case, role)] == []


@pytest.mark.parametrize("case", _ODD_SUBJECTS, ids=lambda case: case.name)
def test_an_odd_attribute_leaves_the_common_name_readable(case: Case) -> None:
    leaf = parse_certificate(chain_of(case).sent[0].der)
    text = case.name.removeprefix("subject with ").removesuffix(" in leaf")
    assert parse_peer(leaf, None).common_name == f"leaf with {text}"


def test_the_table_has_each_name_once() -> None:
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)


def test_the_documentation_lists_exactly_the_differences_from_go() -> None:
    section = _DOCUMENT.read_text().partition("## Differences from Go's verifier")[2].partition("\n## ")[0]
    refused, _, accepted = section.partition("Accepted here")
    for text, is_accepted in ((refused, False), (accepted, True)):
        documented = set(re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE))
        assert documented == {case.why for case in CASES if case.why and _is_more_lenient(case) == is_accepted}


def test_the_documentation_has_the_limits() -> None:
    text = _DOCUMENT.read_text()
    assert f"| certificates that a peer sends | {MAX_SENT} |" in text
    assert f"| certificates of a path, without the anchor | {MAX_PATH} |" in text
    assert f"such as alternative names | {MAX_VALUES} |" in text
    assert f"| extensions of one certificate | {MAX_EXTENSIONS} |" in text
    assert f"| {MAX_RSA_BITS} bits, exponent of 32 bits |" in text
    assert f"RSA of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits" in text


def _is_more_lenient(case: Case) -> bool:
    """Whether we accept what Go refuses; no case is both."""
    differences = {
        getattr(case, role) == OK for role, theirs in zip(ROLES, case.go, strict=True) if _differs(case, role, theirs)
    }
    assert len(differences) == 1, case.name
    return differences.pop()


def _differs(case: Case, role: str, theirs: bool) -> bool:
    return bool((getattr(case, role) == OK) != theirs)
