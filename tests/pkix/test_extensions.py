"""Extensions are read as RFC 5280 has them, and a malformed one refuses the peer with what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.odd_certificates.factory import (
    AUTHORITY_KEY_ID,
    BASIC,
    NAME_CONSTRAINTS,
    POLICIES,
    POLICY_CONSTRAINTS,
    POLICY_MAPPINGS,
    SUBJECT_KEY_ID,
)
from tests.support.odd_certificates.raw_der import boolean, context, extension, implicit, integer, octets, oid, seq
from tunnel.errors import Denial, PeerDenied, WireError, WireFault
from tunnel.pkix.extensions import MAX_EXTENSIONS, Extensions, parse_extensions

MALFORMED: dict[str, tuple[str, bytes, Callable[[Extensions], object]]] = {
    "basic constraints of three parts": (
        BASIC,
        seq(boolean(True), integer(0), integer(0)),
        Extensions.basic_constraints,
    ),
    "a third list of subtrees": (
        NAME_CONSTRAINTS,
        seq(context(2, seq(implicit(2, b"a.test")))),
        Extensions.name_constraints,
    ),
    "a policy without a name": (POLICIES, seq(seq()), Extensions.policies),
    "a mapping of one policy": (POLICY_MAPPINGS, seq(seq(oid("1.2.3.4"))), Extensions.policy_mappings),
    "a third count": (POLICY_CONSTRAINTS, seq(implicit(2, b"\0")), Extensions.policy_constraints),
}


def extensions_of(*parts: bytes) -> Extensions:
    return parse_extensions(seq(*parts))


@pytest.mark.parametrize(("kind", "value", "read"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_extension_is_refused_by_its_name(kind: str, value: bytes, read: Callable[[Extensions], object]) -> None:
    with pytest.raises(PeerDenied, match=r"its (basic|name|policy|certificate) \w+ cannot be read: ") as refused:
        read(extensions_of(extension(kind, value)))
    assert refused.value.reason is Denial.UNREADABLE


@pytest.mark.parametrize("one", [seq(), seq(oid("1.2.3")), seq(oid("1.2.3"), octets(b""), octets(b""), octets(b""))])
def test_an_extension_is_a_name_and_a_value(one: bytes) -> None:
    with pytest.raises(WireError) as refused:
        extensions_of(one)
    assert refused.value.reason is WireFault.MALFORMED


def test_a_certificate_has_at_most_so_many_extensions() -> None:
    many = [extension(f"1.2.3.{number}", b"") for number in range(MAX_EXTENSIONS + 1)]
    assert len(extensions_of(*many[:-1]).found) == MAX_EXTENSIONS
    with pytest.raises(WireError) as refused:
        extensions_of(*many)
    assert refused.value.reason is WireFault.TOO_LARGE


def test_a_key_identifier_that_cannot_be_read_is_no_hint() -> None:
    found = extensions_of(extension(SUBJECT_KEY_ID, integer(1)), extension(AUTHORITY_KEY_ID, octets(b"x")))
    assert (found.subject_key_id(), found.authority_key_id()) == (None, None)


def test_a_policy_mapping_names_two_policies() -> None:
    found = extensions_of(extension(POLICY_MAPPINGS, seq(seq(oid("1.2.3.4"), oid("1.2.3.5")))))
    assert found.policy_mappings() == ((oid("1.2.3.4")[2:], oid("1.2.3.5")[2:]),)
