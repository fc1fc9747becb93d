"""Metric reports: posted as JSON, or written to Graphite, at a fixed interval.

A report that fails is logged and not repeated: the next one follows after an interval.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Awaitable, Callable

import trio

from tunnel.errors import ConfigError, TargetError, WireError, describe_os_error
from tunnel.http.client import HttpUrl, fetch, request_url, start_https, system_context
from tunnel.ip_address import join_host_port
from tunnel.lazy_dataclass import dataclass
from tunnel.log import escape
from tunnel.net.address import TcpAddress
from tunnel.net.dial import open_target
from tunnel.status.encoders import JSON_TYPE, encode_graphite, encode_json
from tunnel.status.snapshot import MetricsSource, Snapshot

WriteLog = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PostTarget:
    """Where reports are posted; `context` is set if the scheme is https."""

    url: HttpUrl
    context: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return str(self.url)


@dataclass(frozen=True, slots=True)
class GraphiteTarget:
    """The address of a Graphite server."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


def open_post_target(url: HttpUrl, cacert: str | None) -> PostTarget:
    """A target whose certificate is verified with a PEM file, or the system's root certificates; raises ConfigError."""
    if not url.is_secure:
        return PostTarget(url)
    try:
        return PostTarget(url, system_context(cacert))
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"{cacert}: cannot read certificates to verify the metrics URL: {describe_os_error(error)}"
        ) from error


async def report_by_post(
    source: MetricsSource, target: PostTarget, *, prefix: str, hostname: str, interval: float, log: WriteLog
) -> None:
    """Post a report after each interval, for ever."""

    async def report() -> None:
        await source.refresh()
        status = await post(target, encode_json(source.snapshot(), prefix, hostname, time.time()))
        if not 200 <= status < 300:
            log(_failure(target, f"unexpected status {status}; expected 2xx"))

    log(f"metrics enabled; reporting metrics via POST to {escape(str(target))}")
    await _repeat(report, interval, lambda why: log(_failure(target, why)))


async def report_to_graphite(
    source: MetricsSource, target: GraphiteTarget, *, prefix: str, interval: float, log: WriteLog
) -> None:
    """Write a report after each interval, for ever, each over a connection of its own."""
    previous: Snapshot | None = None

    async def report() -> None:
        nonlocal previous
        await source.refresh()
        snapshot = source.snapshot()
        lines = encode_graphite(snapshot, prefix, time.time(), previous)
        previous = snapshot
        async with await open_target(TcpAddress(target.host, str(target.port))) as stream:
            await stream.send_all(lines)

    log(f"metrics enabled; reporting metrics via TCP to {escape(str(target))}")
    await _repeat(report, interval, lambda why: log(_failure(target, why)))


async def _repeat(report: Callable[[], Awaitable[None]], interval: float, log_failure: WriteLog) -> None:
    """Report at fixed times, each within one interval: a late report does not delay the next ones."""
    due = trio.current_time() + interval
    while True:
        await trio.sleep_until(due)
        try:
            with trio.fail_after(interval):
                await report()
        except trio.TooSlowError:
            log_failure(f"timeout after {interval:g}s")
        except (OSError, TargetError, WireError, trio.BrokenResourceError) as error:
            log_failure(_describe_cause(error))
        due += interval * max(1, math.ceil((trio.current_time() - due) / interval))


def _failure(target: PostTarget | GraphiteTarget, why: str) -> str:
    return f"error reporting metrics: {escape(str(target))}: {escape(why)}"


async def post(target: PostTarget, body: bytes) -> int:
    """The status of the response; raises what sockets and TLS raise, and WireError."""
    url = target.url
    stream: trio.abc.Stream = await open_target(TcpAddress(url.host, str(url.port)))
    if target.context is not None:
        stream = start_https(stream, target.context, url.host)
    async with stream:
        return (await fetch(stream, request_url("POST", url, {"Content-Type": JSON_TYPE}, body))).status


def _describe_cause(error: BaseException) -> str:
    """The text of the first cause: trio wraps the errors of sockets and OpenSSL."""
    while error.__cause__ is not None:
        cause = error.__cause__
        error = cause.exceptions[-1] if isinstance(cause, BaseExceptionGroup) else cause
    text = describe_os_error(error) if isinstance(error, OSError) else str(error)
    return text or type(error).__name__
