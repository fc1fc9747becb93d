"""Revocation lists as bytes: what they say, what makes one malformed, and what makes one unusable."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cert_factory import NOW, authority, key_of
from tests.support.odd_certificates.raw_der import (
    bits,
    boolean,
    context,
    extension,
    generalized,
    implicit,
    integer,
    octets,
    oid,
    seq,
    time,
    tlv,
    utc_time,
)
from tests.support.revocation_lists import (
    BEGIN,
    DELTA,
    END,
    ENTRY_ISSUER,
    NUMBER,
    NUMBERED,
    PARTIAL,
    UNKNOWN,
    encode_list,
    entry,
    make_list,
    reason,
)
from tunnel.errors import WireError
from tunnel.pkix import crl
from tunnel.pkix.crl import RevocationList, parse_revocation_list


def scope(*fields: bytes) -> bytes:
    return extension(PARTIAL, seq(*fields), critical=True)


ROOT = authority(key=key_of("p256", 500))
SAMPLE = encode_list(ROOT, 1, 0x80, 1 << 150, entries=[entry(7, reason(1)), entry(8, reason(8))])
# Each form of an entry that the short path of the parser does not take.
LONG_ENTRY = entry(9, *[extension(f"1.2.3.{number}", bytes(40)) for number in range(4)])


def test_a_list_has_its_issuer_dates_and_serial_numbers() -> None:
    found = make_list(ROOT, 1, 0x80, 1 << 150)
    assert (found.issuer, found.this_update, found.next_update) == (ROOT.certificate.subject, BEGIN, END)
    assert found.revoked == {1, 0x80, 1 << 150}
    assert found.problem == ""


def test_a_list_without_entries_revokes_nothing() -> None:
    assert make_list(ROOT).revoked == frozenset()


def test_a_list_of_version_1_needs_no_extensions() -> None:
    found = make_list(ROOT, 5, version=b"", extensions=None)
    assert (found.revoked, found.problem) == ({5}, "")


def test_a_list_of_another_library_is_read() -> None:
    revoked = x509.RevokedCertificateBuilder().serial_number(77).revocation_date(NOW)
    for flag in (x509.ReasonFlags.key_compromise, x509.ReasonFlags.certificate_hold):
        one = revoked.add_extension(x509.CRLReason(flag), critical=False)
        one = one.add_extension(x509.InvalidityDate(NOW), critical=False)
        built = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(ROOT.built.subject)
            .last_update(NOW)
            .next_update(datetime(2051, 1, 1))  # GeneralizedTime
            .add_extension(x509.CRLNumber(5), critical=False)
            .add_revoked_certificate(one.build())
            .sign(ROOT.key, hashes.SHA384())
        )
        found = parse_revocation_list(built.public_bytes(Encoding.DER))
        assert (found.revoked, found.problem, found.next_update.year) == ({77}, "", 2051)


@pytest.mark.parametrize("serial", [0, 1, 127, 128, 255, 256, -1, -129, 1 << 159, (1 << 160) - 1, 1 << 2000])
def test_a_serial_number_of_any_size_is_found(serial: int) -> None:
    assert make_list(ROOT, serial).revoked == {serial}


@pytest.mark.parametrize(
    "one",
    [
        seq(integer(9), generalized("20261122120000Z")),
        seq(integer(9), utc_time("2611221200Z")),
        LONG_ENTRY,
        seq(integer(9), time(BEGIN), seq(reason(0))),
        seq(integer(9), time(BEGIN), seq(extension("2.5.29.21", tlv(0x0A, b"\6"), critical=True))),
    ],
    ids=["generalized-time", "no-seconds", "long-form", "reason", "critical-reason"],
)
def test_an_entry_of_any_form_is_read_among_usual_ones(one: bytes) -> None:
    assert make_list(ROOT, entries=[entry(4), one, entry(5)]).revoked == {4, 5, 9}


def test_a_certificate_that_is_removed_from_the_list_is_not_revoked() -> None:
    entries = [entry(2, reason(8)), entry(3, reason(1)), entry(4, reason(8)), entry(5, reason(1))]
    assert make_list(ROOT, 1, entries=entries).revoked == {1, 3, 5}


def test_many_different_extensions_of_entries_are_read() -> None:
    entries = [entry(serial, extension("2.5.29.24", generalized(f"{2000 + serial}0101000000Z"))) for serial in range(1, 200)]
    assert len(make_list(ROOT, entries=entries).revoked) == 199


def test_two_lists_are_equal_if_their_bytes_are() -> None:
    encoded = encode_list(ROOT, 1)
    assert parse_revocation_list(encoded) == parse_revocation_list(encoded)
    assert parse_revocation_list(encoded) != make_list(ROOT, 1)  # another signature
    assert len({parse_revocation_list(encoded), parse_revocation_list(encoded)}) == 1


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "delta": ({"extensions": [NUMBERED, extension(DELTA, integer(1), critical=True)]}, "it is a delta list"),
    "delta-not-critical": ({"extensions": [NUMBERED, extension(DELTA, integer(1))]}, "it is a delta list"),
    "some-reasons": ({"extensions": [scope(implicit(3, b"\0\x80"))]}, "its issuing distribution point is for"),
    "indirect-scope": ({"extensions": [scope(implicit(4, b"\xff"))]}, "its issuing distribution point is for"),
    "indirect": ({"entries": [entry(3, extension(ENTRY_ISSUER, seq(), critical=True))]}, "it is an indirect list"),
    "unknown-critical": (
        {"extensions": [extension(UNKNOWN, b"", critical=True)]},
        "unknown critical extension 1.3.6.1.4.1.55555",
    ),
    "unknown-critical-entry": (
        {"entries": [entry(3, extension(UNKNOWN, b"", critical=True))]},
        "an entry has the unknown critical",
    ),
    "critical-number": ({"extensions": [extension(NUMBER, integer(1), critical=True)]}, "its number is a critical extension"),
    "endless": ({"end": None}, "it has no nextUpdate"),
    "sha-1": ({"algorithm": seq(oid("1.2.840.10045.4.1"))}, "signed over SHA-1"),
}


@pytest.mark.parametrize(("fields", "problem"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_list_that_must_not_be_used_states_why_and_keeps_its_issuer(fields: dict[str, Any], problem: str) -> None:
    found = make_list(ROOT, 1, **fields)
    assert problem in found.problem
    assert found.issuer == ROOT.certificate.subject


@pytest.mark.parametrize(
    "one",
    [
        extension(UNKNOWN, b""),
        extension("2.5.29.18", seq(), critical=True),
        extension("2.5.29.46", seq()),
        extension("1.3.6.1.5.5.7.1.1", seq()),
    ],
    ids=["unknown", "issuer-names", "freshest-list", "authority-access"],
)
def test_an_extension_that_restricts_nothing_is_ignored(one: bytes) -> None:
    assert make_list(ROOT, extensions=[NUMBERED, one]).problem == ""


MALFORMED: dict[str, dict[str, Any]] = {
    "version": {"version": integer(2)},
    "version-1-stated": {"version": integer(0)},
    "version-1-extensions": {"version": b""},
    "version-1-entry-extensions": {"version": b"", "extensions": None, "entries": [entry(1, reason(1))]},
    "unknown-field": {"more": context(1, seq())},
    "malformed-scope": {"extensions": [scope(implicit(1, b"\1"))]},
    "two-extension-fields": {"more": context(0, seq(NUMBERED))},
    "twice-the-same-extension": {"extensions": [NUMBERED, NUMBERED]},
    "entry-without-date": {"entries": [seq(integer(1))]},
    "entry-of-four": {"entries": [seq(integer(1), time(BEGIN), seq(reason(1)), seq())]},
    "entry-with-two-extensions-fields": {"entries": [seq(integer(1), time(BEGIN), seq(reason(1)), seq(reason(1)))]},
    "entry-with-another-date": {"entries": [seq(integer(1), octets(b"2611221200"), b"")]},
    "entry-without-serial": {"entries": [seq(tlv(2), time(BEGIN))]},
    "entry-of-long-serial-form": {"entries": [seq(tlv(2, b"\0\1"), time(BEGIN))]},
    "entry-of-negative-long-form": {"entries": [seq(tlv(2, b"\xff\xff"), time(BEGIN))]},
    "entry-of-another-type": {"entries": [octets(bytes(30))]},
    "entry-with-a-boolean-serial": {"entries": [seq(boolean(True), time(BEGIN))]},
    "entry-with-another-reason": {"entries": [entry(1, extension("2.5.29.21", integer(1)))]},
    "entry-with-a-bad-extension": {"entries": [seq(integer(1), time(BEGIN), octets(b""))]},
    "entry-that-ends-early": {"entries": [b"\x30\x7f\x02\x01\x01\x17\x0d", bytes(10)]},
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_list_is_refused_as_a_whole(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError, match=r"^not a revocation list: "):
        make_list(ROOT, 1, **fields)


def test_a_list_must_have_three_parts_one_algorithm_and_a_signature_of_whole_bytes() -> None:
    tbs = encode_list(ROOT, 1)
    head, algorithm, signature = _parts(tbs)
    for parts in (
        (head, algorithm),
        (head, seq(oid("1.2.840.10045.4.3.3")), signature),
        (head, algorithm, bits(b"\x80", 7)),
        (seq(integer(1), algorithm), algorithm, signature),
        (seq(integer(1)), algorithm, signature),
        (seq(integer(1), algorithm, octets(b""), time(BEGIN)), algorithm, signature),
    ):
        with pytest.raises(WireError, match=r"^not a revocation list: "):
            parse_revocation_list(seq(*parts))


def _parts(encoded: bytes) -> list[bytes]:
    from tunnel.pkix.der import read_sequence

    return [value.whole for value in read_sequence(encoded)]


def test_the_number_of_entries_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode_list(ROOT, *range(10))
    monkeypatch.setattr(crl, "MAX_REVOKED", 10)
    assert len(parse_revocation_list(encoded).revoked) == 10
    monkeypatch.setattr(crl, "MAX_REVOKED", 9)
    with pytest.raises(WireError, match="more than 9 entries"):
        parse_revocation_list(encoded)


@pytest.mark.parametrize("has_key_id", [True, False])
def test_a_list_may_be_of_an_issuer_with_its_name_and_key_identifier(has_key_id: bool) -> None:
    other, renamed = authority(key=key_of("p256", 501)), authority(key=key_of("p256", 500), subject="other")
    found = make_list(ROOT, has_key_id=has_key_id)
    assert found.may_be_of(ROOT.certificate)
    assert found.may_be_of(authority(key=key_of("p256", 501), has_key_ids=False).certificate)
    assert found.may_be_of(other.certificate) != has_key_id
    assert not found.may_be_of(renamed.certificate)


def answer(encoded: bytes) -> RevocationList | None:
    """The list, or None for the parser's own error; anything else escapes."""
    try:
        return parse_revocation_list(encoded)
    except WireError:
        return None


def test_every_truncation_is_an_error() -> None:
    assert answer(SAMPLE) is not None
    for size in range(len(SAMPLE)):
        assert answer(SAMPLE[:size]) is None


@given(st.data())
def test_damage_gives_a_list_or_an_error(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(SAMPLE) - 1))
    answer(SAMPLE[:at] + data.draw(st.binary(max_size=3)) + SAMPLE[at + data.draw(st.integers(0, 3)) :])


@given(st.binary(max_size=200))
def test_any_bytes_and_any_entries_give_a_list_or_an_error(noise: bytes) -> None:
    answer(noise)
    answer(encode_list(ROOT, entries=[entry(1), noise, entry(2)]))


@given(st.lists(st.integers(-(1 << 200), 1 << 200), max_size=30))
def test_the_serial_numbers_are_those_that_were_encoded(serials: list[int]) -> None:
    assert make_list(ROOT, *serials).revoked == set(serials)


def test_dates_of_entries_in_the_future_revoke_too() -> None:
    assert make_list(ROOT, entries=[entry(3, date=NOW + timedelta(days=900))]).revoked == {3}
