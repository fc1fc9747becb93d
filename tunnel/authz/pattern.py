"""Wildcard patterns over URIs, in ghostunnel's grammar.

Knows what `*` and `**` mean between two slashes; must not know whose URIs are matched. A segment is matched whole or not
at all, and the pattern covers the whole URI.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunnel.errors import ConfigError

_SPIFFE = ["spiffe:", ""]  # what "spiffe://" becomes when it is split at its slashes


@dataclass(frozen=True, slots=True)
class UriPattern:
    """A pattern that has been understood."""

    text: str
    expression: re.Pattern[str]

    def is_match(self, uri: str) -> bool:
        """Whether the whole of `uri` matches."""
        return self.expression.fullmatch(uri) is not None

    def names_trust_domain(self) -> bool:
        """Whether the pattern spells out one trust domain, rather than a wildcard in its place."""
        segments = self.text.split("/")
        return segments[:2] == _SPIFFE and len(segments) > 2 and "*" not in segments[2] and bool(segments[2])

    def can_match_spiffe_id(self) -> bool:
        """Whether any SPIFFE ID at all could match."""
        return self.text.startswith(("spiffe://", "*", "spiffe:/*"))


def parse_pattern(text: str) -> UriPattern:
    """The pattern; raises ConfigError for a wildcard in a place where it has no meaning."""
    trimmed = text[:-1] if text.endswith("/") and text != "/" else text
    if not trimmed:
        raise ConfigError("a pattern must not be empty")
    *heads, last = trimmed.split("/")
    if "**" in heads:
        raise ConfigError(f"{text!a}: '**' can only be the last segment")
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
        raise ConfigError(f"{text!a}: wildcard '*' can only appear between two separators")
    return re.escape(part)
