"""Which certificates a list with an issuing distribution point is about."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cert_factory import MadeCertificate, authority, key_of, leaf
from tests.support.odd_certificates.raw_der import context, implicit, octets, seq
from tunnel.errors import WireError
from tunnel.pkix.extensions import DISTRIBUTION_POINTS, Extension, Extensions
from tunnel.pkix.list_scope import ListScope, parse_scope
from tunnel.pkix.list_scope import _points_of as points_of

ONE, TWO = (implicit(6, f"http://ca.test/{name}.crl".encode()) for name in ("one", "two"))
AUTHORITY, USER = authority(key=key_of("p256", 570)), leaf(key=key_of("p256", 571))


def full(*names: bytes) -> bytes:
    """The distribution point field with full names."""
    return context(0, context(0, *names))


def with_points(*points: x509.DistributionPoint) -> MadeCertificate:
    return leaf(key=key_of("p256", 571), extra=[(x509.CRLDistributionPoints(points), False)])


def point(*names: str, **fields: Any) -> x509.DistributionPoint:
    uris = [x509.UniformResourceIdentifier(f"http://ca.test/{name}.crl") for name in names]
    told = {"full_name": uris, "relative_name": None, "reasons": None, "crl_issuer": None} | fields
    return x509.DistributionPoint(**told)


SCOPES: dict[str, tuple[bytes, bool, bool]] = {  # the fields; whether users and authorities are included
    "nothing": (b"", True, True),
    "users": (implicit(1, b"\xff"), True, False),
    "authorities": (implicit(2, b"\xff"), False, True),
    "explicit-default": (implicit(1, b"\0") + implicit(4, b"\0"), True, True),
}


@pytest.mark.parametrize(("fields", "has_users", "has_authorities"), SCOPES.values(), ids=SCOPES)
def test_a_list_is_about_users_authorities_or_both(fields: bytes, has_users: bool, has_authorities: bool) -> None:
    scope = parse_scope(seq(fields))
    assert scope is not None
    assert scope.includes(USER.certificate) == has_users
    assert scope.includes(leaf(is_ca=None).certificate) == has_users
    assert scope.includes(AUTHORITY.certificate) == has_authorities


def test_a_list_of_a_distribution_point_is_about_certificates_with_one_of_its_names() -> None:
    scope = parse_scope(seq(full(ONE, TWO)))
    assert scope is not None
    assert scope.includes(with_points(point("three"), point("one")).certificate)
    assert scope.includes(with_points(point("three", "two")).certificate)
    assert not scope.includes(with_points(point("three")).certificate)
    assert not scope.includes(USER.certificate)


def test_a_distribution_point_of_another_issuer_for_some_reasons_or_with_a_relative_name_does_not_count() -> None:
    issuer = [x509.DirectoryName(AUTHORITY.built.subject)]
    reasons = frozenset([x509.ReasonFlags.key_compromise])
    relative = x509.RelativeDistinguishedName(list(AUTHORITY.built.subject))
    others = (
        point("one", crl_issuer=issuer),
        point("one", reasons=reasons),
        point(full_name=None, relative_name=relative),
    )
    assert points_of(with_points(*others).certificate) == frozenset()
    assert points_of(with_points(*others, point("one")).certificate) == {ONE}


@pytest.mark.parametrize(
    "fields",
    [
        implicit(3, b"\0\x80"),
        implicit(4, b"\xff"),
        implicit(5, b"\xff"),
        implicit(1, b"\xff") + implicit(2, b"\xff"),
        context(0, context(1, octets(b""))),
        context(7),
    ],
    ids=["some-reasons", "indirect", "attributes", "neither", "relative-name", "unknown-field"],
)
def test_any_other_scope_is_not_supported(fields: bytes) -> None:
    assert parse_scope(seq(fields)) is None


@pytest.mark.parametrize("fields", [implicit(1, b"\1"), implicit(1, b""), context(0), context(0, context(0), context(0))])
def test_a_malformed_scope_is_an_error(fields: bytes) -> None:
    with pytest.raises(WireError):
        parse_scope(seq(fields))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_scope_or_an_error_and_distribution_points_or_none(noise: bytes) -> None:
    class Odd:
        extensions = Extensions({DISTRIBUTION_POINTS: Extension(False, noise)})

    assert isinstance(points_of(Odd()), frozenset)  # type: ignore[arg-type]
    with suppress(WireError):
        assert isinstance(parse_scope(noise), ListScope | None)
