"""Parsers of single values: durations, numbers, names, choices.

Each returns the value or raises the ConfigError of `invalid_value`; the command-line parser puts the flag in front.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tunnel.errors import ConfigError, SpiffeIdError, invalid_value
from tunnel.ip_address import IpAddress, IpNetwork, parse_ip_address, parse_ip_network
from tunnel.lazy_dataclass import MISSING, dataclass, fields
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
_SHOWN_UNITS = ("h", "m", "s", "ms")
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PART = re.compile(rf"({_NUMBER})({'|'.join(sorted(_SECONDS, key=len, reverse=True))})")
_DURATION = re.compile(rf"[+-]?(?:{_PART.pattern})+")
_DURATION_FORM = "a duration such as 250ms, 10s or 1h30m"
MOST_WORKERS = 256
AUTO = "auto"  # one worker for each usable core
MOST_PEER_SERIES = 1000
_UINT32_MAX = 2**32 - 1
_MAX_SECONDS = 2**63 / 1e9  # what Go counts in nanoseconds: 292 years


def default_of(kind: type, name: str) -> Any:
    """The default of a field of a dataclass: the only place where the default of a flag is written."""
    default = next(field.default for field in fields(kind) if field.name == name)
    assert default is not MISSING, f"{kind.__name__}.{name} has no default"
    return default


def parse_text(text: str) -> str:
    """The text itself."""
    return text


def parse_name(text: str) -> str:
    """A name that is not empty: an empty one would match every certificate without that name."""
    if not text:
        raise invalid_value("name", text, "empty")
    return text


def parse_host_name(text: str) -> str:
    """A host name without a port."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise invalid_value("name", text, expected="a host name without a port")
    return text


def parse_ip(text: str) -> IpAddress:
    """A numeric address."""
    address = parse_ip_address(text)
    if address is None:
        raise invalid_value("IP address", text)
    return address


def parse_network(text: str) -> IpNetwork:
    """A network in CIDR notation, or one address; a network of IPv4-mapped addresses is the IPv4 network."""
    network = parse_ip_network(text)
    if network is None:
        raise invalid_value("network", text, expected="CIDR notation without host bits, such as 10.0.0.0/8, or an IP address")
    return network


def parse_web_url(text: str) -> str:
    """An `http://` or `https://` URL with a host; "" for none."""
    if not text:
        return text
    try:
        url = urlsplit(text)
        is_valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        is_valid = False
    if not is_valid or not text.isprintable() or " " in text:
        raise invalid_value("URL", text.rpartition("@")[2], expected="http:// or https:// and a host")  # without credentials
    return text


def parse_collector_url(text: str) -> str:
    """The `http://` or `https://` URL of an OTLP endpoint, with its path."""
    url = parse_web_url(text)
    if not url.isascii() or not urlsplit(url).path:
        expected = "the whole address, such as http://127.0.0.1:4318/v1/traces"
        raise invalid_value("URL", text.rpartition("@")[2], "missing path" if url.isascii() else "not ASCII", expected)
    return url


def parse_ratio(text: str) -> float:
    """A share: above 0, at most 1."""
    ratio = float(text) if re.fullmatch(_NUMBER, text) else 0.0
    if not 0 < ratio <= 1:
        raise invalid_value("ratio", text, expected="a number above 0 and at most 1, such as 0.01")
    return ratio


def parse_duration(text: str) -> float:
    """Seconds of `1h30m`, `250ms`, `2d`; a bare `0` needs no unit."""
    if text.lstrip("+-") == "0" and len(text) <= 2:
        return 0.0
    if not _DURATION.fullmatch(text):
        is_number = re.fullmatch(rf"[+-]?{_NUMBER}", text)
        raise invalid_value("duration", text, "missing unit in duration" if is_number else "", _DURATION_FORM)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    if seconds >= _MAX_SECONDS:
        raise invalid_value("duration", text, "too long", "at most 292 years")
    return -seconds if text.startswith("-") else seconds


def parse_positive_duration(text: str) -> float:
    """A duration above zero."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise invalid_value("duration", text, "not above zero")
    return seconds


def parse_limit(text: str) -> float:
    """A duration of zero or more."""
    seconds = parse_duration(text)
    if seconds < 0:
        raise invalid_value("duration", text, "negative")
    return seconds


def format_duration(seconds: float) -> str:
    """A duration as a flag takes it: `10s`, `24h`, `250ms`; `0` for none."""
    for unit in _SHOWN_UNITS:
        count = seconds / _SECONDS[unit]
        if count >= 1 and count == int(count):
            return f"{count:.0f}{unit}"
    return f"{seconds:g}s" if seconds else "0"


def parse_uint32(text: str) -> int:
    """A number from 0 to 2^32-1 as Go writes them: 16, 0x10, 0o20, 0b10000, 1_000."""
    digits = re.sub(r"^0(?=[0-9])", "0o", text)  # Go reads a leading 0 as octal
    try:
        value = int(digits, 0) if re.fullmatch(r"[0-9a-zA-Z_]+", digits) else -1
    except ValueError:
        value = -1
    if not 0 <= value <= _UINT32_MAX:
        raise invalid_value("number", text, expected=f"0 to {_UINT32_MAX}")
    return value


def parse_workers(text: str) -> int:
    """A number of worker processes; 0 for `auto`."""
    if text == AUTO:
        return 0
    count = parse_uint32(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= count <= MOST_WORKERS:
        raise invalid_value("number of workers", text, expected=f"1 to {MOST_WORKERS}, or {AUTO}")
    return count


def parse_peer_count(text: str) -> int:
    """A number of peers with time series of their own."""
    value = parse_uint32(text)
    if value > MOST_PEER_SERIES:
        raise invalid_value("number", text, expected=f"0 to {MOST_PEER_SERIES}")
    return value


def parse_mode(text: str) -> int:
    """The permissions of a file, in octal."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise invalid_value("mode", text, expected="octal permissions such as 0600 or 0660")
    return int(text, 8)


def parse_secret_mode(text: str) -> int:
    """The permissions of a file with a secret: none for others."""
    mode = parse_mode(text)
    if mode & 0o007:
        raise invalid_value("mode", text, "every user of this machine could read the secret", "--group and 0640 to share it")
    return mode


def format_mode(mode: int) -> str:
    """The permissions of a file as a flag takes them."""
    return f"{mode:04o}"


def parse_id(text: str) -> SpiffeId:
    """One exact SPIFFE ID of a workload."""
    try:
        spiffe_id = parse_spiffe_id(text)
    except SpiffeIdError as error:
        raise ConfigError(str(error)) from error
    if not spiffe_id.is_workload():
        raise invalid_value("SPIFFE ID", text, "it names a trust domain, not a workload", "an ID with a path")
    return spiffe_id


def parse_domain(text: str) -> TrustDomain:
    """A trust domain, by its name or its SPIFFE ID."""
    try:
        return parse_trust_domain(text)
    except SpiffeIdError as error:
        raise ConfigError(str(error)) from error


def or_none(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """The same parser, with None for an empty text."""
    return lambda text: parse(text) if text else None


@dataclass(frozen=True, slots=True)
class OneOf:
    """A parser that accepts certain words only."""

    words: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """The word itself; the error is kingpin's."""
        if text not in self.words:
            raise ConfigError(f"enum value must be one of {','.join(self.words)}, got '{text}'")
        return text


def one_of(*words: str) -> OneOf:
    """A parser that accepts these words only."""
    return OneOf(words)
