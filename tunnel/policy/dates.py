"""The two forms of time in a certificate as RFC 3339.

Knows UTCTime and GeneralizedTime as RFC 5280, 4.1.2.5 allows them; must not know what they bound.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from tunnel.errors import WireError, WireFault
from tunnel.policy import der
from tunnel.policy.der import Value

_DIGITS = {der.UTC_TIME: re.compile(rb"\d{12}Z"), der.GENERALIZED_TIME: re.compile(rb"\d{14}Z")}


def encode_time(value: Value) -> str:
    """A time in UTC, to the second; raises WireError."""
    pattern = _DIGITS.get(value.tag)
    match = pattern.fullmatch(value.body) if pattern else None
    if match is None:
        raise WireError(WireFault.MALFORMED, "a date that is not written as certificates write it")
    text = value.body.decode("ascii")[:-1]
    if value.tag == der.UTC_TIME:
        text = ("20" if text < "5" else "19") + text
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC).isoformat()
    except ValueError as error:
        raise WireError(WireFault.MALFORMED, "a date that is none") from error
