"""Metrics sent out: posted as JSON, or written to Graphite.

Knows when a report is due and how it travels; must not know what is in it. A report that fails is said in the log and never
more than that: the next one comes an interval later.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11
import trio

from tunnel import __version__
from tunnel.errors import ConfigError, TargetError, describe_os_error
from tunnel.log import escape
from tunnel.net.address import TcpAddress, join_host_port
from tunnel.net.dial import open_target
from tunnel.status.encoders import JSON_TYPE, encode_graphite, encode_json
from tunnel.status.snapshot import MetricsSource, Snapshot
from tunnel.status.trust import system_context

_READ = 16 * 1024

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PostTarget:
    """Where reports are posted; `context` is there when the scheme is https."""

    host: str
    port: int
    path: str = "/"
    context: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"{'https' if self.context else 'http'}://{join_host_port(self.host, self.port)}{self.path}"

    @property
    def authority(self) -> str:
        """For the Host header: a port that is the scheme's own goes without saying (RFC 9110, 7.2)."""
        authority = join_host_port(self.host, self.port)
        return authority.removesuffix(f":{443 if self.context else 80}")


@dataclass(frozen=True, slots=True)
class GraphiteTarget:
    """Where Graphite takes lines."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


def open_trust(cacert: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later, verified by a PEM file's certificates or by the system's; raises ConfigError."""
    try:
        return system_context(cacert)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"{cacert}: no certificates to verify the metrics URL with can be read ({describe_os_error(error)})"
        ) from error


async def report_by_post(
    source: MetricsSource, target: PostTarget, *, prefix: str, hostname: str, interval: float, say: Say
) -> None:
    """Post a report after each interval, for ever."""

    async def report() -> None:
        status = await post(target, encode_json(source.snapshot(), prefix, hostname, time.time()))
        if not 200 <= status < 300:
            say(_failure(target, f"answered with status {status}, 2xx was wanted"))

    say(f"metrics enabled; reporting metrics via POST to {escape(str(target))}")
    await _repeat(report, interval, lambda why: say(_failure(target, why)))


async def report_to_graphite(source: MetricsSource, target: GraphiteTarget, *, prefix: str, interval: float, say: Say) -> None:
    """Write a report after each interval, for ever, each over a connection of its own."""
    previous: Snapshot | None = None

    async def report() -> None:
        nonlocal previous
        snapshot = source.snapshot()
        lines = encode_graphite(snapshot, prefix, time.time(), previous)
        previous = snapshot
        async with await open_target(TcpAddress(target.host, str(target.port))) as stream:
            await stream.send_all(lines)

    say(f"metrics enabled; reporting metrics via TCP to {escape(str(target))}")
    await _repeat(report, interval, lambda why: say(_failure(target, why)))


async def _repeat(report: Callable[[], Awaitable[None]], interval: float, fail: Say) -> None:
    """Keep to the beat, with one interval of time for each: one that was late does not delay those that follow."""
    due = trio.current_time() + interval
    while True:
        await trio.sleep_until(due)
        try:
            with trio.fail_after(interval):
                await report()
        except trio.TooSlowError:
            fail(f"not done within {interval:g}s")
        except (OSError, TargetError, trio.BrokenResourceError, h11.ProtocolError) as error:
            fail(_why(error))
        due += interval * max(1, math.ceil((trio.current_time() - due) / interval))


def _failure(target: PostTarget | GraphiteTarget, why: str) -> str:
    return f"error reporting metrics: {escape(str(target))}: {escape(why)}"


async def post(target: PostTarget, body: bytes) -> int:
    """The status of the answer; its body is not waited for. Raises what sockets, TLS and h11 raise."""
    connection = h11.Connection(h11.CLIENT)
    headers = [
        ("Host", target.authority),
        ("User-Agent", f"tunnel/{__version__}"),
        ("Content-Type", JSON_TYPE),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    events = (h11.Request(method="POST", target=target.path, headers=headers), h11.Data(body), h11.EndOfMessage())
    async with await _connect(target) as stream:
        await stream.send_all(b"".join(connection.send(event) or b"" for event in events))
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                return event.status_code
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(_READ)))


async def _connect(target: PostTarget) -> trio.abc.Stream:
    stream = await open_target(TcpAddress(target.host, str(target.port)))
    if target.context is None:
        return stream
    return trio.SSLStream(stream, target.context, server_hostname=target.host, https_compatible=True)


def _why(error: BaseException) -> str:
    """The words of the first cause: trio wraps what a socket or OpenSSL has said."""
    while error.__cause__ is not None:
        cause = error.__cause__
        error = cause.exceptions[-1] if isinstance(cause, BaseExceptionGroup) else cause
    words = describe_os_error(error) if isinstance(error, OSError) else str(error)
    return words or type(error).__name__
