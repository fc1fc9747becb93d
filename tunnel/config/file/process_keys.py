"""The keys of a configuration file about the process: log, status port and metric reports."""

from __future__ import annotations

from typing import Final

from tunnel.config.file.kinds import (
    ValueKind,
    close_policy,
    duration,
    file_name,
    integer,
    listing,
    optional,
    ratio,
    socket_path,
    switch,
    text,
    words,
)
from tunnel.config.file.problem import Place
from tunnel.config.file.schema import Key, Section, mask_credentials, mask_header
from tunnel.config.headers import parse_header
from tunnel.config.model import (
    ACCESS_FORMATS,
    ACCESS_TARGETS,
    LOG_FORMATS,
    HealthPort,
    LogConfig,
    Metrics,
    Monitor,
    ProcessConfig,
    Status,
    Traces,
)
from tunnel.config.values import (
    AUTO,
    MOST_PEER_SERIES,
    MOST_WORKERS,
    one_of,
    parse_collector_url,
    parse_duration,
    parse_host_name,
    parse_limit,
    parse_positive_duration,
    parse_text,
    parse_web_url,
)
from tunnel.lazy_dataclass import replace
from tunnel.net.address import (
    ListenAddress,
    StatusAddress,
    UnixAddress,
    parse_health_address,
    parse_status_address,
    parse_tcp_address,
)


def _unix_path(status: StatusAddress) -> str:
    return _plain_unix_path(status.address)


def _plain_unix_path(address: ListenAddress) -> str:
    return address.path if isinstance(address, UnixAddress) else ""


def _log_target() -> ValueKind[str]:
    """One of the known targets, or a file, which is relative to the directory of the configuration file."""
    file, names = file_name(), ", ".join(f'"{name}"' for name in ACCESS_TARGETS)

    def read(value: object, place: Place) -> str:
        return value if isinstance(value, str) and value in ACCESS_TARGETS else file.parse(value, place)

    return replace(file, form=f"{names} or {file.form}", parse=read)


def _workers() -> ValueKind[int]:
    """A number of processes, or one for each usable core."""
    number = integer(MOST_WORKERS, 1)

    def read(value: object, place: Place) -> int:
        return 0 if value == AUTO else number.parse(value, place)

    def encode(value: int) -> int | str:
        return value or AUTO

    schema = {"anyOf": [number.schema, {"const": AUTO}]}
    return ValueKind(f'{number.form}, or "{AUTO}" for one on each usable core', read, encode, schema)


_LIMIT = duration(parse_limit)
_QUIET = text('"conns", "conn-errs", "handshake-errs" or "all"', one_of("all", "conns", "handshake-errs", "conn-errs"))

PROCESS: Final = Section(
    "",
    "The process",
    ProcessConfig,
    (
        Key(
            "shutdown-delay",
            _LIMIT,
            "Time to report not ready and still accept connections after a stop begins",
            "shutdown_delay",
        ),
        Key(
            "shutdown-timeout",
            duration(parse_duration),
            "Maximum time for the drain of open connections in a stop",
            "shutdown_timeout",
        ),
        Key("timed-reload", _LIMIT, "Interval between reloads, besides SIGHUP; 0 for none", "timed_reload"),
        Key("workers", _workers(), "Number of processes that serve connections", "workers"),
        Key(
            "on-removal",
            close_policy(),
            "When connections of a listener that a reload removes or moves are closed",
            "on_removal",
        ),
        Key(
            "disable-landlock",
            switch(is_inverted=True),
            "Do not confine the process to the files and ports that the configuration names",
            "is_confined",
        ),
    ),
)
LOG: Final = Section(
    "log",
    "The log",
    LogConfig,
    (
        Key("quiet", listing(_QUIET), "Lines to omit from the log", "quiet"),
        Key("syslog", switch(), "Log to the local syslog instead of standard output", "is_syslog"),
        Key(
            "format",
            words({word: word for word in LOG_FORMATS}),
            "Format of all other lines than the access log's",
            "format",
        ),
        Key(
            "access-log",
            words({word: word for word in ACCESS_FORMATS}),
            "Write one event per connection to the access log, in place of the lines about connections",
            "access.format",
        ),
        Key("access-log-target", _log_target(), "Where the access log is written", "access.target"),
        Key("access-log-start", switch(), "Also write an event when a connection is forwarded", "access.has_start"),
    ),
)
STATUS: Final = Section(
    "status",
    "The status port",
    Status,
    (
        Key(
            "listen",
            socket_path(text('an address such as "http://127.0.0.1:6060" or "unix:PATH"', parse_status_address), _unix_path),
            "Address of the status port: HTTPS with our own certificate unless it has http://",
            "address",
            is_required=True,
        ),
        Key("enable-pprof", switch(), "Serve task lists and profiles at /debug/pprof/", "has_pprof"),
        Key("enable-shutdown", switch(), "Stop the process on a POST to /_shutdown", "has_shutdown"),
        Key("enable-reload", switch(), "Reload the configuration on a POST to /_reload", "has_reload"),
        Key("ui", switch(), "Serve a page for web browsers at /ui/", "has_ui"),
        Key("allow-host", listing(text("a host name", parse_host_name)), "Host names to accept in requests", "allowed_hosts"),
    ),
)
HEALTH: Final = Section(
    "health",
    "The health port: plain HTTP, `/livez` and `/readyz` only",
    HealthPort,
    (
        Key(
            "listen",
            socket_path(text('an address such as "127.0.0.1:6061" or "unix:PATH"', parse_health_address), _plain_unix_path),
            "Address of the health port",
            "address",
            is_required=True,
        ),
        Key("allow-host", listing(text("a host name", parse_host_name)), "Host names to accept in requests", "allowed_hosts"),
    ),
)
METRICS: Final = Section(
    "metrics",
    "Metric reports, besides the status port",
    Metrics,
    (
        Key("graphite", optional(text("HOST:PORT", parse_tcp_address)), "Graphite server to send metrics to", "graphite"),
        Key(
            "url",
            optional(text("an http:// or https:// URL", parse_web_url)),
            "URL to POST metrics to, as JSON",
            "url",
            mask=mask_credentials,
        ),
        Key("prefix", text("a string", parse_text), "Prefix of metric names", "prefix"),
        Key("interval", duration(parse_positive_duration), "Interval between reports", "interval"),
        Key("ca", file_name(), "CA certificates in PEM to verify the server of `url`; default the system's", "ca_bundle"),
        Key(
            "peers",
            integer(MOST_PEER_SERIES),
            "Number of peers with time series of their own at /metrics of the status port; 0 for none",
            "peers",
        ),
    ),
)
TRACES: Final = Section(
    "traces",
    "Traces of connections; needs the extra otel",
    Traces,
    (
        Key(
            "url",
            text("an http:// or https:// URL with a path", parse_collector_url),
            "URL of the OTLP/HTTP endpoint of a collector, such as http://127.0.0.1:4318/v1/traces",
            "url",
            is_required=True,
            mask=mask_credentials,
        ),
        Key("ratio", ratio(), "Share of connections that are traced", "ratio"),
        Key("ca", file_name(), "CA certificates in PEM to verify the server of `url`; default the system's", "ca_bundle"),
        Key(
            "headers",
            listing(text('a header "NAME: VALUE"', parse_header)),
            "Headers of each request, such as those with an API key",
            "headers",
            mask=mask_header,
        ),
    ),
)
MONITOR: Final = Section(
    "monitor",
    "A further status port, health port or metric report, about some listeners",
    Monitor,
    (
        Key(
            "listeners",
            listing(text("the name of a listener", parse_text)),
            "Names of the listeners that it is about; default all",
            "listeners",
        ),
    ),
)
