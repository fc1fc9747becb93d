"""The check of a certificate against the lists of its issuer, at a given time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.cert_factory import NOW, MadeCertificate, authority, key_of, leaf
from tests.support.odd_certificates.raw_der import extension, implicit, integer, seq
from tests.support.revocation_lists import BEGIN, DELTA, END, PARTIAL, make_list
from tunnel.errors import Denial, PeerDenied
from tunnel.pkix import revocation
from tunnel.pkix.crl import RevocationList
from tunnel.pkix.revocation import RevocationChecker, RevocationLists

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
ROOT = authority(subject="root", key=key_of("p256", 510))
TWIN = authority(subject="root", key=key_of("p256", 511))  # another authority of the same name
GOOD, BAD = leaf(issuer=ROOT), leaf(issuer=ROOT)
SERIAL = BAD.certificate.serial_number
OTHER_SERIAL = SERIAL + 1


def verdict(
    lists: Sequence[RevocationList],
    certificate: MadeCertificate = BAD,
    issuer: MadeCertificate = ROOT,
    now: datetime = NOW,
    **settings: bool,
) -> tuple[Denial | None, str]:
    """The reason and the text of a refusal, or (None, the warnings)."""
    warnings: list[str] = []
    checker = RevocationChecker(RevocationLists(tuple(lists), **settings), warnings.append)
    try:
        checker.check(certificate.certificate, issuer.certificate, now)
        checker.check(certificate.certificate, issuer.certificate, now)  # warns no second time
    except PeerDenied as denied:
        return denied.reason, denied.seen
    return None, "\n".join(warnings)


def test_a_certificate_on_the_list_of_its_issuer_is_revoked_and_its_neighbour_is_not() -> None:
    lists = [make_list(ROOT, SERIAL)]
    seen = "on the revocation list that 'CN=root' issued at 2026-11-22T11:00:00Z"
    assert verdict(lists) == (Denial.REVOKED, seen)
    assert verdict(lists, GOOD) == (None, "")


def test_a_serial_number_on_the_list_of_another_issuer_means_nothing() -> None:
    other = authority(subject="other")
    assert verdict([make_list(ROOT), make_list(other, SERIAL)]) == (None, "")
    assert verdict([make_list(ROOT), make_list(TWIN, SERIAL)]) == (None, "")


def test_each_of_two_authorities_with_the_same_name_has_its_own_list() -> None:
    theirs = leaf(issuer=TWIN)
    lists = [make_list(TWIN, theirs.certificate.serial_number, has_key_id=False), make_list(ROOT, SERIAL, has_key_id=False)]
    assert verdict(lists)[0] is verdict(lists, theirs, TWIN)[0] is Denial.REVOKED
    assert verdict(lists, GOOD)[0] is verdict(lists, leaf(issuer=TWIN), TWIN)[0] is None


NO_LIST = "no revocation list of 'CN=root'"
OF_ROOT = "the revocation list of 'CN=root'"
OLD = make_list(ROOT, OTHER_SERIAL, begin=BEGIN - DAY, end=END - DAY)
MISSING: dict[str, tuple[list[RevocationList], str]] = {
    "expired": ([OLD], f"{OF_ROOT} expired at 2026-11-21T13:00:00Z"),
    "early": ([make_list(ROOT, begin=NOW + SECOND)], f"{OF_ROOT} is not valid before 2026-11-22T12:00:01Z"),
    "forged": (
        [make_list(ROOT, signer=TWIN)],
        f"{OF_ROOT} cannot be used: the signature does not verify with the key of the issuer",
    ),
    "delta": (
        [make_list(ROOT, extensions=[extension(DELTA, integer(1), critical=True)])],
        f"{OF_ROOT} cannot be used: it is a delta list; expected a complete list",
    ),
}


@pytest.mark.parametrize(("lists", "seen"), MISSING.values(), ids=MISSING)
def test_without_a_valid_list_a_certificate_is_refused_or_accepted_with_one_warning(
    lists: list[RevocationList], seen: str
) -> None:
    assert verdict(lists) == (Denial.NO_REVOCATION_LIST, seen)
    accepted = f"certificate accepted without a valid revocation list: {seen}"
    assert verdict(lists, is_required=False) == (None, accepted)


def test_an_issuer_without_a_list_is_refused_only_if_every_issuer_needs_one() -> None:
    lists = [make_list(authority(subject="other"))]
    assert verdict(lists) == (None, "")
    assert verdict(lists, is_complete=True) == (Denial.NO_REVOCATION_LIST, NO_LIST)
    assert verdict([], is_complete=True) == (Denial.NO_REVOCATION_LIST, NO_LIST)
    assert verdict(lists, is_complete=True, is_required=False)[0] is None


def test_an_expired_list_still_revokes() -> None:
    lists = [make_list(ROOT, SERIAL, end=NOW - SECOND)]
    assert verdict(lists)[0] is verdict(lists, is_required=False)[0] is Denial.REVOKED


@pytest.mark.parametrize(("now", "is_valid"), [(BEGIN - SECOND, False), (BEGIN, True), (END, True), (END + SECOND, False)])
def test_both_ends_of_the_validity_are_included(now: datetime, is_valid: bool) -> None:
    assert (verdict([make_list(ROOT)], GOOD, now=now)[0] is None) == is_valid


@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_newest_valid_list_counts(is_reversed: bool) -> None:
    older = make_list(ROOT, SERIAL, begin=BEGIN - SECOND)
    future = make_list(ROOT, SERIAL, begin=NOW + SECOND, end=END + DAY)
    useless = make_list(ROOT, SERIAL, begin=BEGIN + SECOND, signer=TWIN)
    lists = [older, make_list(ROOT), future, useless]
    assert verdict(lists[::-1] if is_reversed else lists) == (None, "")
    assert verdict([older, future, useless])[0] is Denial.REVOKED


def test_a_certificate_needs_a_list_that_is_about_it() -> None:
    users, authorities = (
        make_list(ROOT, SERIAL, begin=BEGIN + seconds * SECOND, extensions=[extension(PARTIAL, seq(implicit(number, b"\xff")))])
        for seconds, number in enumerate((1, 2))
    )
    assert verdict([users, authorities])[0] is Denial.REVOKED
    assert verdict([users, authorities], GOOD) == (None, "")
    seen = f"{OF_ROOT} is for other certificates (issuing distribution point)"
    assert verdict([authorities]) == (Denial.NO_REVOCATION_LIST, seen)


@pytest.mark.parametrize(
    ("usage", "is_usable"), [(("key_cert_sign", "crl_sign"), True), (None, True), (("key_cert_sign",), False)]
)
def test_the_key_usage_of_the_issuer_must_permit_lists_if_it_is_present(usage: Any, is_usable: bool) -> None:
    issuer = authority(subject="root", key=key_of("p256", 512), usage=usage)
    reason, seen = verdict([make_list(issuer)], leaf(issuer=issuer), issuer)
    assert (reason is None) == is_usable
    assert is_usable or seen == f"{OF_ROOT} cannot be used: the key usage of the issuer lacks cRLSign"


def test_the_number_of_checked_signatures_and_warnings_that_are_kept_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "_MOST_CHECKED", 2)
    monkeypatch.setattr(revocation, "_MOST_WARNED", 1)
    warnings: list[str] = []
    issuers = [authority(subject="root", key=key_of("p256", 513 + number)) for number in range(3)]
    expired = make_list(ROOT, end=NOW - SECOND, has_key_id=False)
    checker = RevocationChecker(RevocationLists((expired,), is_required=False), warnings.append)
    for issuer in (*issuers, ROOT):
        checker.check(GOOD.certificate, issuer.certificate, NOW)
    assert len(warnings) == 1
    assert len(checker._problems) <= 2


def test_the_verdict_changes_at_the_next_date_of_a_list_of_an_issuer() -> None:
    middle = authority(subject="middle", issuer=ROOT)
    path = [one.certificate for one in (leaf(issuer=middle), middle, ROOT)]
    lists = (
        make_list(ROOT, end=END + DAY),
        make_list(middle, begin=BEGIN - DAY),
        make_list(authority(subject="other"), end=NOW),
    )
    checker = RevocationChecker(RevocationLists(lists))
    assert checker.next_change(path, NOW) == END
    assert checker.next_change(path, END) == END
    assert checker.next_change(path, END + SECOND) == END + DAY
    assert checker.next_change(path, BEGIN - DAY - SECOND) == BEGIN - DAY
    assert checker.next_change(path, END + 2 * DAY).year == checker.next_change(path[:1], NOW).year == 9999


def test_our_own_revoked_certificates_are_found_with_an_issuer_of_the_chain_or_of_the_authorities() -> None:
    middle = authority(subject="middle", issuer=ROOT)
    ours = leaf(issuer=middle)
    chain, authorities = (ours.certificate, middle.certificate), (TWIN.certificate, ROOT.certificate)
    both = (
        make_list(ROOT, middle.certificate.serial_number),
        make_list(middle, ours.certificate.serial_number, end=NOW - SECOND),
    )
    checker = RevocationChecker(RevocationLists(both))
    assert list(checker.find_revoked(chain, authorities, NOW)) == [*chain]
    assert list(checker.find_revoked(chain, authorities[:1], NOW)) == [ours.certificate]
    assert list(checker.find_revoked((GOOD.certificate,), authorities, NOW)) == []


def warnings_of(lists: Sequence[RevocationList], *authorities: MadeCertificate, **settings: bool) -> list[str]:
    checker = RevocationChecker(RevocationLists(tuple(lists), **settings))
    return list(checker.find_warnings([one.certificate for one in authorities], NOW))


def test_lists_that_will_not_be_accepted_are_reported_with_the_effect() -> None:
    refused, accepted = "certificates of this issuer are refused", "certificates of this issuer are accepted"
    assert warnings_of([make_list(ROOT)], ROOT, TWIN) == []
    assert warnings_of([OLD], ROOT) == [f"revocation list of 'CN=root' expired at 2026-11-21T13:00:00Z: {refused}"]
    assert warnings_of([OLD], is_required=False)[0].endswith(accepted)
    assert warnings_of([OLD, make_list(ROOT)], ROOT) == []
    delta = MISSING["delta"][0]
    assert warnings_of(delta, ROOT) == ["revocation list of 'CN=root' not used: it is a delta list; expected a complete list"]
    forged, seen = MISSING["forged"]
    assert warnings_of(forged, ROOT) == [f"{seen}: {refused}"]
    assert warnings_of([*forged, make_list(ROOT)], ROOT) == []


def test_authorities_without_a_list_are_reported_if_each_needs_one() -> None:
    other, third = authority(subject="other"), authority(subject="third")
    assert warnings_of([make_list(ROOT)], ROOT, other) == []
    refused = "certificates of this issuer are refused"
    assert warnings_of([make_list(ROOT)], ROOT, other, is_complete=True) == [f"no revocation list of 'CN=other': {refused}"]
    assert warnings_of([], other, third, is_complete=True) == [f"no revocation list of 'CN=other' (and of 1 more): {refused}"]


def test_the_first_issuer_without_a_valid_list_sets_the_expiry() -> None:
    other = authority(subject="other")
    lists = (OLD, make_list(ROOT, end=END + DAY), make_list(other), *MISSING["delta"][0])
    assert RevocationLists(lists).expires == END
    assert RevocationLists(lists[:2]).expires == END + DAY
    assert RevocationLists(lists[3:]).expires is RevocationLists().expires is None


def test_lists_are_compared_by_value() -> None:
    same = make_list(ROOT)
    assert RevocationLists((same,)) == RevocationLists((same,))
    assert RevocationLists((same,)) != RevocationLists((same,), is_required=False)
    strict = RevocationLists((same,), is_complete=True)
    assert RevocationLists(is_complete=True).with_lists((same,)) == strict
    assert not RevocationLists().is_checked
    assert RevocationLists((same,)).is_checked
    assert RevocationLists(is_complete=True).is_checked
