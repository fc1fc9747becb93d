"""The flags of the status port and of metrics, and the values that they build."""

from __future__ import annotations

from typing import Any

from tunnel.cli.command import Arguments, Flag, option, repeated, switch
from tunnel.commands.proxy import source
from tunnel.config.model import HealthPort, Metrics, Monitor, Status
from tunnel.config.values import (
    default_of,
    or_none,
    parse_host_name,
    parse_peer_count,
    parse_positive_duration,
    parse_text,
    parse_web_url,
)
from tunnel.errors import ConfigError
from tunnel.net.address import parse_health_address, parse_status_address, parse_tcp_address

STATUS = option(
    "status",
    "Serve status and metrics at [http://|https://]HOST:PORT, unix:PATH or systemd:NAME. HOST:PORT is HTTPS with our own "
    "certificate unless it has http://; requests need no authentication",
    or_none(parse_status_address),
    None,
    placeholder="ADDR",
)
HEALTH = option(
    "health",
    "Serve only /livez and /readyz, in plain HTTP, at [http://]HOST:PORT, unix:PATH or systemd:NAME, from the start until the "
    "end of the process: for probes. Requests need no authentication",
    or_none(parse_health_address),
    None,
    placeholder="ADDR",
)
PPROF = switch("enable-pprof", "Serve task lists and profiles at /debug/pprof/ of the status port")
SHUTDOWN = switch("enable-shutdown", "Stop the process on a POST to /_shutdown of the status port")
RELOAD = switch("enable-reload", "Reload on a POST to /_reload of the status port")
UI = switch("ui", "Serve a page for web browsers at /ui/ of the status port")
ALLOW_HOST = repeated(
    "status-allow-host",
    "Accept this host name in requests to --status and --health. If given, requests for other names are refused on every "
    "address, else on loopback only; IP addresses, localhost and this machine's name are always accepted; repeatable",
    parse_host_name,
    placeholder="NAME",
)
GRAPHITE = option("metrics-graphite", "Send metrics to this Graphite server", parse_tcp_address, None, placeholder="HOST:PORT")
METRICS_URL = option("metrics-url", "POST metrics as JSON to this URL", parse_web_url, "", placeholder="URL")
METRICS_PREFIX = option(
    "metrics-prefix", "Prefix of metric names", parse_text, default_of(Metrics, "prefix"), placeholder="NAME"
)
METRICS_INTERVAL = option(
    "metrics-interval",
    "Interval between metric reports",
    parse_positive_duration,
    default_of(Metrics, "interval"),
    placeholder="TIME",
)
METRICS_PEERS = option(
    "metrics-peers",
    "Number of peers with time series of their own at /metrics of the status port: the busiest ones",
    parse_peer_count,
    default_of(Metrics, "peers"),
    zero="none",
    placeholder="N",
)
TARGET_STATUS = option(  # of a server only
    "target-status",
    "Check the target by a request to this URL, which must answer 200, when the status is queried",
    parse_web_url,
    "",
    placeholder="URL",
    default_text="whether the target accepts connections",
)

FLAGS: tuple[Flag[Any], ...] = (
    STATUS,
    HEALTH,
    PPROF,
    SHUTDOWN,
    RELOAD,
    UI,
    ALLOW_HOST,
    GRAPHITE,
    METRICS_URL,
    METRICS_PREFIX,
    METRICS_INTERVAL,
    METRICS_PEERS,
)


def check_status(arguments: Arguments) -> None:
    """Raise ConfigError for a flag of a port that is not served."""
    found: list[Flag[Any]] = [flag for flag in (PPROF, SHUTDOWN, RELOAD, UI) if arguments[flag]]
    found += [METRICS_PEERS] if arguments.is_given(METRICS_PEERS) else []
    if found and arguments[STATUS] is None:
        raise ConfigError(f"--{found[0].name} needs --status, the status port")
    if arguments[ALLOW_HOST] and arguments[STATUS] is None and arguments[HEALTH] is None:
        raise ConfigError(f"--{ALLOW_HOST.name} needs --status or --health")


def _build_status(arguments: Arguments) -> Status | None:
    """The status port, None without `--status`."""
    address = arguments[STATUS]
    if address is None:
        return None
    switches = arguments[PPROF], arguments[SHUTDOWN], arguments[RELOAD]
    return Status(address, *switches, arguments[ALLOW_HOST], has_ui=arguments[UI])


def build_monitors(arguments: Arguments) -> tuple[Monitor, ...]:
    """The status port, the health port and the metric reports of a line; none if it has no flag for them."""
    monitor = Monitor(_build_status(arguments), _build_metrics(arguments), health=_build_health(arguments))
    return (monitor,) if any(monitor.parts()) else ()


def _build_health(arguments: Arguments) -> HealthPort | None:
    address = arguments[HEALTH]
    return HealthPort(address, arguments[ALLOW_HOST]) if address is not None else None


def _build_metrics(arguments: Arguments) -> Metrics:
    """The targets of metric reports."""
    return Metrics(
        arguments[GRAPHITE],
        arguments[METRICS_URL],
        arguments[METRICS_PREFIX],
        arguments[METRICS_INTERVAL],
        arguments[source.CACERT],
        arguments[METRICS_PEERS],
    )
