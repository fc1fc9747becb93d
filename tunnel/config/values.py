"""Texts of single values: durations, numbers, choices.

Knows the notations of the command line; must not know which flag uses them. Each function returns the value or raises
ConfigError with what was seen and what was wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeVar
from urllib.parse import urlsplit

from tunnel.errors import ConfigError, SpiffeIdError
from tunnel.spiffe.ids import SpiffeId, TrustDomain, parse_spiffe_id, parse_trust_domain

T = TypeVar("T")

_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PART = re.compile(rf"({_NUMBER})({'|'.join(sorted(_SECONDS, key=len, reverse=True))})")
_DURATION = re.compile(rf"[+-]?(?:{_PART.pattern})+")
_UINT32_MAX = 2**32 - 1
_MOST_SECONDS = 2**63 / 1e9  # what Go counts in nanoseconds: 292 years


def parse_text(text: str) -> str:
    """The text itself."""
    return text


def parse_name(text: str) -> str:
    """A name, which is not empty: an empty one would match whatever certificate has none."""
    if not text:
        raise ConfigError("a name is wanted, got an empty one")
    return text


def parse_ip(text: str) -> IPv4Address | IPv6Address:
    """A numeric address."""
    try:
        return ip_address(text)
    except ValueError as error:
        raise ConfigError(f"'{text}' is not an IP address") from error


def parse_web_url(text: str) -> str:
    """An `http://` or `https://` URL with a host; "" for none."""
    if not text:
        return text
    try:
        url = urlsplit(text)
        is_good = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        is_good = False
    if not is_good or not text.isprintable() or " " in text:
        shown = text.rpartition("@")[2]  # without credentials
        raise ConfigError(f"{shown!a} is no URL that begins with http:// or https:// and names a host")
    return text


def parse_duration(text: str) -> float:
    """Seconds of `1h30m`, `250ms`, `2d`; a bare `0` needs no unit."""
    if text.lstrip("+-") == "0" and len(text) <= 2:
        return 0.0
    if not _DURATION.fullmatch(text):
        hint = "; missing unit in duration" if re.fullmatch(rf"[+-]?{_NUMBER}", text) else ""
        raise ConfigError(f"{text!a} is not a duration such as 250ms, 10s or 1h30m{hint}")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    if seconds >= _MOST_SECONDS:
        raise ConfigError(f"{text!a} is too long a duration: at most 292 years are wanted")
    return -seconds if text.startswith("-") else seconds


def parse_positive_duration(text: str) -> float:
    """A duration above zero."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ConfigError(f"duration must be above zero, got {text!a}")
    return seconds


def parse_limit(text: str) -> float:
    """A duration of zero or more."""
    seconds = parse_duration(text)
    if seconds < 0:
        raise ConfigError(f"duration must not be negative, got {text!a}")
    return seconds


def parse_uint32(text: str) -> int:
    """A number from 0 to 2^32-1 as Go writes them: 16, 0x10, 0o20, 0b10000, 1_000."""
    digits = re.sub(r"^0(?=[0-9])", "0o", text)  # Go reads a leading 0 as octal
    try:
        value = int(digits, 0) if re.fullmatch(r"[0-9a-zA-Z_]+", digits) else -1
    except ValueError:
        value = -1
    if not 0 <= value <= _UINT32_MAX:
        raise ConfigError(f"{text!a} is not a number from 0 to {_UINT32_MAX}")
    return value


def parse_mode(text: str) -> int:
    """The permissions of a file, in octal."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ConfigError(f"{text!a} is not a mode such as 0600 or 0660")
    return int(text, 8)


def parse_id(text: str) -> SpiffeId:
    """One exact SPIFFE ID of a workload."""
    try:
        spiffe_id = parse_spiffe_id(text)
    except SpiffeIdError as error:
        raise ConfigError(str(error)) from error
    if not spiffe_id.is_workload():
        raise ConfigError(f"{text!a} names a trust domain, not a workload: an ID with a path is wanted")
    return spiffe_id


def parse_domain(text: str) -> TrustDomain:
    """A trust domain, by its name or its SPIFFE ID."""
    try:
        return parse_trust_domain(text)
    except SpiffeIdError as error:
        raise ConfigError(str(error)) from error


def or_none(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """The same parser, to which an empty text means none."""
    return lambda text: parse(text) if text else None


@dataclass(frozen=True, slots=True)
class OneOf:
    """A parser that takes certain words only, and can name them."""

    words: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """The word itself."""
        if text not in self.words:
            raise ConfigError(f"enum value must be one of {','.join(self.words)}, got '{text}'")
        return text


def one_of(*words: str) -> OneOf:
    """A parser that takes these words only."""
    return OneOf(words)
