"""Odd certificates and chains: our verdict in every mode, and that of Go's verifier, are those of the table."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from certificate_cases import CERTIFICATES
from constraint_cases import CONSTRAINTS
from odd_cases import OK, REFUSED, ROLES, Case
from odd_factory import HOST, Chain
from odd_judges import judge
from path_cases import PATHS

from tunnel.pkix.certificate import parse_certificate
from tunnel.pkix.path import MAX_PATH, MAX_SENT
from tunnel.pkix.strength import MAX_RSA_BITS, MIN_RSA_BITS
from tunnel.tls.facts import describe_peer

CASES = [*PATHS.cases, *CERTIFICATES.cases, *CONSTRAINTS.cases]
_ODD_SUBJECTS = [case for case in CASES if case.name.startswith("subject with ") and case.name.endswith(" in leaf")]
_GO_VERIFIER = Path(__file__).parent / "go_verifier"
_DOCUMENT = Path(__file__).parents[2] / "docs/certificates.md"
_OLDEST_GO = (1, 24)  # older ones accept negative serial numbers and short RSA keys, and know no policies


@cache
def chain_of(case: Case) -> Chain:
    return case.chain()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_verdict_is_that_of_the_table(case: Case, role: str) -> None:
    chain = chain_of(case)
    got = judge(role, [one.der for one in chain.anchors], [one.der for one in chain.sent], HOST)
    expected = getattr(case, role)
    assert got != OK if expected == REFUSED else got == expected


@pytest.mark.parametrize("case", _ODD_SUBJECTS, ids=lambda case: case.name)
def test_an_odd_attribute_leaves_the_common_name_readable(case: Case) -> None:
    leaf = parse_certificate(chain_of(case).sent[0].der)
    text = case.name.removeprefix("subject with ").removesuffix(" in leaf")
    assert describe_peer(leaf, None).common_name == f"leaf with {text}"


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


def test_go_agrees_with_its_column(tmp_path: Path) -> None:
    answers = _ask_go(tmp_path)
    wrong = {case.name: answers[case.name] for case in CASES if _go_verdicts(answers[case.name]) != case.go}
    assert wrong == {}


def _ask_go(tmp_path: Path) -> dict[str, dict[str, str]]:
    program = tmp_path / "go_verifier"
    argv = [_go(), "build", "-o", str(program), "."]
    environ = {"PATH": "/usr/bin:/bin", "GOCACHE": str(tmp_path / "cache"), "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    subprocess.run(argv, cwd=_GO_VERIFIER, check=True, capture_output=True, env=environ)
    asked = "".join(_question(case.name, chain_of(case)) for case in CASES)
    answered = subprocess.run([program], input=asked, check=True, capture_output=True, text=True).stdout
    return {answer["name"]: answer for answer in map(json.loads, answered.splitlines())}


def _go() -> str:
    """The path of a Go that is new enough; skips the test without one."""
    path = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if path is None:
        pytest.skip("no go command")
    said = subprocess.run([path, "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout
    version = re.match(r"go(\d+)\.(\d+)", said)
    if version is None or tuple(map(int, version.groups())) < _OLDEST_GO:
        pytest.skip(f"{said.strip()} is older than the column")
    return path


def _question(name: str, chain: Chain) -> str:
    anchors, sent = ([base64.b64encode(one.der).decode() for one in several] for several in (chain.anchors, chain.sent))
    return json.dumps({"name": name, "anchors": anchors, "chain": sent, "host": HOST}) + "\n"


def _go_verdicts(answer: dict[str, str]) -> tuple[bool, ...]:
    return tuple(answer[role] == "" for role in ROLES)
