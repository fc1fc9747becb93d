"""The flags of the status port and of metrics, and the values that they mean.

Knows where either may be offered; must not know what they say.
"""

from __future__ import annotations

import re
from typing import Any

from tunnel.cli.parser import Arguments, Flag, option, repeated, switch
from tunnel.config.model import Metrics, Status
from tunnel.config.values import or_none, parse_positive_duration, parse_text, parse_web_url
from tunnel.errors import ConfigError
from tunnel.net.address import TcpAddress, parse_address, parse_status_address


def parse_host_name(text: str) -> str:
    """A host name without a port; raises ConfigError."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise ConfigError(f"invalid name {text!a}: expected a host name without a port")
    return text


def _parse_graphite(text: str) -> TcpAddress:
    try:
        address = parse_address(text)
    except ConfigError as error:
        raise ConfigError(f"'{text}' is not a valid TCP address: {error}") from error
    if not isinstance(address, TcpAddress):
        raise ConfigError(f"'{text}' is not a valid TCP address: HOST:PORT is wanted")
    return address


STATUS = option(
    "status",
    "Serve status and metrics here: [http://|https://]HOST:PORT, unix:PATH or systemd:NAME. HOST:PORT speaks HTTPS with our "
    "own certificate unless it says http://; anyone who reaches it may ask.",
    or_none(parse_status_address),
    None,
    placeholder="ADDR",
)
PPROF = switch("enable-pprof", "Serve task lists and profiles at /debug/pprof/ of the status port.")
SHUTDOWN = switch("enable-shutdown", "Let a POST to /_shutdown of the status port end the process.")
ALLOW_HOST = repeated(
    "status-allow-host",
    "Accept this host name in requests to the status port. If given, requests for other names are refused on every address, "
    "else on loopback only; IP addresses, localhost and this machine's name are always accepted. May be repeated.",
    parse_host_name,
    placeholder="NAME",
)
GRAPHITE = option("metrics-graphite", "Send metrics to this Graphite server.", _parse_graphite, None, placeholder="HOST:PORT")
METRICS_URL = option("metrics-url", "POST metrics as JSON to this URL.", parse_web_url, "", placeholder="URL")
METRICS_PREFIX = option(
    "metrics-prefix", "What the names of metrics begin with; default ghostunnel.", parse_text, "ghostunnel", placeholder="NAME"
)
METRICS_INTERVAL = option(
    "metrics-interval", "How often metrics are sent; default 30s.", parse_positive_duration, 30.0, placeholder="TIME"
)
TARGET_STATUS = option(  # of a server only
    "target-status",
    "Ask the target for this URL, and expect 200, when the status is asked for; default, whether it accepts connections.",
    parse_web_url,
    "",
    placeholder="URL",
)

FLAGS: tuple[Flag[Any], ...] = (STATUS, PPROF, SHUTDOWN, ALLOW_HOST, GRAPHITE, METRICS_URL, METRICS_PREFIX, METRICS_INTERVAL)


def check_served(arguments: Arguments) -> None:
    """What is served at the status port needs one; raises ConfigError."""
    flags: tuple[Flag[Any], ...] = (PPROF, SHUTDOWN, ALLOW_HOST)
    for flag in flags:
        if arguments[flag] and arguments[STATUS] is None:
            raise ConfigError(f"--{flag.name} needs --status: it is served there")


def build_status(arguments: Arguments) -> Status | None:
    """The status port that a line's flags mean, if any."""
    address = arguments[STATUS]
    if address is None:
        return None
    return Status(address, arguments[PPROF], arguments[SHUTDOWN], arguments[ALLOW_HOST])


def build_metrics(arguments: Arguments) -> Metrics:
    """Where a line's flags have metrics sent."""
    return Metrics(arguments[GRAPHITE], arguments[METRICS_URL], arguments[METRICS_PREFIX], arguments[METRICS_INTERVAL])
