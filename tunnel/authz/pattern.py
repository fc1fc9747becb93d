"""URI patterns in ghostunnel's syntax: `*` matches one path segment, `**` at the end matches any number of segments."""

from __future__ import annotations

import re

from tunnel.errors import invalid_value
from tunnel.lazy_dataclass import dataclass

_SPIFFE = ["spiffe:", ""]  # "spiffe://" split at its slashes


@dataclass(frozen=True, slots=True)
class UriPattern:
    """A parsed pattern."""

    text: str
    expression: re.Pattern[str]

    def is_match(self, uri: str) -> bool:
        """Whether the pattern matches the whole URI."""
        return self.expression.fullmatch(uri) is not None

    def names_trust_domain(self) -> bool:
        """Whether the pattern spells out one trust domain instead of a wildcard."""
        segments = self.text.split("/")
        return segments[:2] == _SPIFFE and len(segments) > 2 and "*" not in segments[2] and bool(segments[2])

    def can_match_spiffe_id(self) -> bool:
        """Whether the pattern can match any SPIFFE ID."""
        return self.text.startswith(("spiffe://", "*", "spiffe:/*"))


def parse_pattern(text: str) -> UriPattern:
    """Parse a pattern; raises ConfigError for a misplaced wildcard."""
    trimmed = text[:-1] if text.endswith("/") and text != "/" else text
    if not trimmed:
        raise invalid_value("URI pattern", text, "empty")
    *heads, last = trimmed.split("/")
    if "**" in heads:
        raise invalid_value("URI pattern", text, "'**' can only be the last segment")
    if last != "**":
        body = "/".join(_segment(part, text) for part in [*heads, last]) + "/?"
    elif heads:
        body = "/".join(_segment(part, text) for part in heads) + "/?(?:|/[^\\n]*)"
    else:
        body = "[^\\n]*"
    return UriPattern(text, re.compile(body))


def _segment(part: str, text: str) -> str:
    if part == "*":
        return "[^/]+"
    if "*" in part:
        raise invalid_value("URI pattern", text, "wildcard '*' can only appear between two separators")
    return re.escape(part)
