"""The published cases of the C2SP x509-limbo project: our verdict is theirs, except for the differences listed here.

`limbo.json.xz` has the cases that need no revocation list and no certificate of a public website, reduced to what a verifier
is given. docs/certificates.md explains each group of differences.
"""

from __future__ import annotations

import base64
import json
import lzma
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.odd_certificates.cases import OK
from tests.support.odd_certificates.verifiers import judge

CASES: list[dict[str, Any]] = json.loads(lzma.decompress((Path(__file__).parent / "limbo.json.xz").read_bytes()))
# What we accept although the case asks for a refusal, by the reason.
ACCEPTED = {
    "no setting for the path length": """
        pathlen::max-chain-depth-0-exhausted pathlen::max-chain-depth-1-exhausted
    """,
    "key identifiers are hints": """
        rfc5280::aki::leaf-missing-aki rfc5280::aki::intermediate-missing-aki rfc5280::aki::cross-signed-root-missing-aki
        rfc5280::ski::root-missing-ski rfc5280::ski::intermediate-missing-ski webpki::aki::root-with-aki-missing-keyidentifier
        webpki::aki::root-with-aki-authoritycertissuer webpki::aki::root-with-aki-authoritycertserialnumber
        webpki::aki::root-with-aki-all-fields webpki::aki::root-with-aki-ski-mismatch
    """,
    "fields and extensions that no rule reads": "rfc5280::serial::negative webpki::malformed-aia",
    "names that match nothing": "rfc5280::nc::nc-permits-invalid-email-san",
    "demands on issuers that protect no verifier": """
        rfc5280::eku::ee-eku-empty rfc5280::nc::permitted-dns-match-noncritical rfc5280::nc::invalid-dnsname-leading-period
        rfc5280::nc::not-allowed-in-ee-noncritical rfc5280::nc::not-allowed-in-ee-critical rfc5280::pc::ica-noncritical-pc
        rfc5280::san::noncritical-with-empty-subject rfc5280::san::underscore-dns rfc5280::serial::too-long
        rfc5280::serial::zero rfc5280::ca-empty-subject rfc5280::root-non-critical-basic-constraints
        rfc5280::leaf-ku-keycertsign
    """,
    "web PKI": """
        webpki::cn::ipv4-hex-mismatch webpki::cn::ipv4-leading-zeros-mismatch webpki::cn::ipv6-uppercase-mismatch
        webpki::cn::ipv6-uncompressed-mismatch webpki::cn::ipv6-non-rfc5952-mismatch webpki::cn::punycode-not-in-san
        webpki::cn::utf8-vs-punycode-mismatch webpki::cn::not-in-san webpki::cn::case-mismatch webpki::eku::ee-anyeku
        webpki::eku::ee-critical-eku webpki::eku::ee-without-eku webpki::eku::root-has-eku
        webpki::san::public-suffix-wildcard-san webpki::san::public-suffix-multi-label-wildcard-san
        webpki::san::public-suffix-private-namespace-wildcard-san webpki::san::san-critical-with-nonempty-subject
        webpki::forbidden-rsa-not-divisible-by-8-in-root webpki::forbidden-rsa-key-not-divisible-by-8-in-leaf
        webpki::ee-basicconstraints-ca webpki::ca-as-leaf
    """,
}
# What we refuse although the case asks for an acceptance.
REFUSED = {
    "dates are compared to the fraction of a second": "rfc5280::validity::notafter-fractional",
}
_DIFFERENT = {one: group for groups in (ACCEPTED, REFUSED) for group, ids in groups.items() for one in ids.split()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_verdict_is_that_of_the_case_or_a_listed_difference(case: dict[str, Any]) -> None:
    role = "server" if case["kind"] == "CLIENT" else "client"
    anchors, sent = ([base64.b64decode(der) for der in case[part]] for part in ("anchors", "sent"))
    verdict = judge(role, anchors, sent, case["host"], datetime.fromisoformat(case["time"]))
    is_accepted = case["expected"] == "SUCCESS"
    assert (verdict == OK) == (is_accepted != (case["id"] in _DIFFERENT)), f"{verdict}: {case['description']}"


def test_every_listed_difference_is_a_case() -> None:
    assert set(_DIFFERENT) <= {case["id"] for case in CASES}


def test_the_documentation_lists_exactly_the_groups_of_differences() -> None:
    section = (Path(__file__).parents[2] / "docs/certificates.md").read_text().partition("of x509-limbo")[2]
    rows = section.partition("\n## ")[0].partition("|---|---|\n")[2].splitlines()
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows if row] == [*ACCEPTED, *REFUSED]
