"""The cases of x509-limbo with revocation lists: our verdict is theirs, except for the difference listed here.

A case gives a list for every issuer that it is about, so each issuer needs one, as with lists in files.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.odd_certificates.verifiers import usable
from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.crl import parse_revocation_list
from tunnel.pkix.extensions import SERVER_AUTH
from tunnel.pkix.revocation import RevocationLists
from tunnel.tls.verify import PkiVerifier, build_pki_anchors

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "limbo_lists.json").read_text())
REFUSED = {
    "crl::revoked-certificate-with-crl": Denial.REVOKED,
    "crl::crlnumber-critical": Denial.NO_REVOCATION_LIST,
    "crl::issuer-missing-crlsign": Denial.NO_REVOCATION_LIST,
}
# The case asks for a refusal. RFC 5280 requires the number of issuers, and no step of its validation (6.3.3) reads it. Lists of
# version 1 have none, and `openssl ca -gencrl` writes none unless `crlnumber` is configured.
ACCEPTED = {"crl::crlnumber-missing"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_verdict_is_that_of_the_case_or_the_listed_difference(case: dict[str, Any]) -> None:
    anchors, sent, lists = ([base64.b64decode(der) for der in case[part]] for part in ("anchors", "sent", "lists"))
    revocation = RevocationLists(tuple(map(parse_revocation_list, lists)), is_complete=True)
    verifier = PkiVerifier(build_pki_anchors(usable(anchors)), SERVER_AUTH, case["host"], revocation=revocation)
    reason = None
    try:
        verifier.verify(usable(sent), datetime.fromisoformat(case["time"]))
    except PeerDenied as denied:
        reason = denied.reason
    assert reason is REFUSED.get(case["id"])
    assert (reason is None) == (case["expected"] == "SUCCESS" or case["id"] in ACCEPTED)
