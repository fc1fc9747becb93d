"""Headers that an operator adds to the requests of this program."""

from __future__ import annotations

import re

from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import dataclass, field

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)[ \t]*")  # RFC 9110, 5.5
_OURS = {"connection", "content-encoding", "content-length", "content-type", "expect", "host", "transfer-encoding", "upgrade"}


@dataclass(frozen=True, slots=True)
class HttpHeader:
    """One header of a request; the value may be a secret."""

    name: str
    value: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name}: {self.value}"


def parse_header(text: str) -> HttpHeader:
    """The header in `NAME: VALUE`; raises ConfigError, whose message has no value, which may be a secret."""
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ConfigError('invalid header; expected "NAME: VALUE" in printable ASCII')
    if match[1].lower() in _OURS:
        raise ConfigError(f"invalid header {match[1]}: each request has its own; expected another name")
    return HttpHeader(match[1], match[2])
