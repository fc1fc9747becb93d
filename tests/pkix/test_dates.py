"""Dates of certificates: the two forms, with an offset too, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.odd_certificates.raw_der import GENERALIZED_TIME, UTC_TIME
from tunnel.errors import WireError
from tunnel.pkix.dates import parse_time
from tunnel.pkix.der import DerValue

NOON = datetime(2026, 11, 22, 12, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tag", "text", "at"),
    [
        (UTC_TIME, "261122120005Z", NOON),
        (UTC_TIME, "2611221200Z", NOON.replace(second=0)),
        (UTC_TIME, "261122133005+0130", NOON),
        (UTC_TIME, "491231235959Z", datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (UTC_TIME, "500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (GENERALIZED_TIME, "20261122120005Z", NOON),
        (GENERALIZED_TIME, "20261122103005-0130", NOON),
        (GENERALIZED_TIME, "00000101000000Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_date_is_a_time_in_utc(tag: int, text: str, at: datetime) -> None:
    assert parse_time(DerValue(tag, text.encode(), b"")) == at


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (UTC_TIME, ""),
        (UTC_TIME, "261122120005"),
        (UTC_TIME, "261322120005Z"),
        (UTC_TIME, "261122120005+2400"),
        (UTC_TIME, "261122120005+0060"),
        (GENERALIZED_TIME, "202611221200Z"),
        (GENERALIZED_TIME, "20261122120005.5Z"),
        (GENERALIZED_TIME, "00010101000000+0100"),  # before the first time that is known here
        (0x0C, "20261122120005Z"),
    ],
)
def test_any_other_text_is_not_a_date(tag: int, text: str) -> None:
    with pytest.raises(WireError):
        parse_time(DerValue(tag, text.encode(), b""))
