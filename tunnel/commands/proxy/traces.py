"""The flags of traces, and the value that they build."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tunnel.cli.command import Arguments, Flag, Group, option
from tunnel.config.model import Traces
from tunnel.config.values import default_of, parse_collector_url, parse_ratio, parse_text
from tunnel.errors import ConfigError

URL = option(
    "traces",
    "Send traces of connections to this OTLP/HTTP endpoint, such as http://127.0.0.1:4318/v1/traces; needs the extra otel",
    parse_collector_url,
    "",
    placeholder="URL",
)
RATIO = option(
    "traces-ratio",
    "Share of connections that are traced: above 0, at most 1",
    parse_ratio,
    default_of(Traces, "ratio"),
    placeholder="R",
    default_text=str(default_of(Traces, "ratio")),
)
CA = option(
    "traces-ca",
    "CA certificates in PEM to verify the server of an https:// URL of --traces",
    parse_text,
    default_of(Traces, "ca_bundle"),
    placeholder="FILE",
    default_text="the system's",
)
TRACES = Group("Traces", (URL, RATIO, CA))


def check_traces(arguments: Arguments) -> None:
    """Raise ConfigError for a flag about traces if there are none."""
    others: tuple[Flag[Any], ...] = (RATIO, CA)
    for flag in others:
        if arguments.is_given(flag) and not arguments[URL]:
            raise ConfigError(f"--{flag.name} needs --{URL.name}")


def build_traces(arguments: Arguments) -> Traces | None:
    """The traces of a line; None without `--traces`."""
    return Traces(arguments[URL], arguments[RATIO], arguments[CA]) if arguments[URL] else None


def join_traces(lines: Iterable[Traces | None]) -> Traces | None:
    """The traces of a process with several lines, which hold for all of them; raises ConfigError if they differ."""
    found = {traces for traces in lines if traces is not None}
    if len(found) > 1:
        raise ConfigError(f"--{URL.name}: two lines have different values; expected the same --{URL.name} and options")
    return found.pop() if found else None
