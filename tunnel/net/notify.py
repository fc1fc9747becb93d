"""Notifications to a service manager (sd_notify(3)): states and watchdog keep-alives.

A notification never blocks and never fails: a manager that does not read must not stop the traffic. Keep-alives must be sent by
the event loop itself, so that a loop that hangs sends none and the manager restarts the process.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum

from tunnel.errors import ConfigError, invalid_value
from tunnel.log import one_line
from tunnel.unix_path import check_unix_path

_VARIABLE = "NOTIFY_SOCKET"

_KEEP_ALIVE = b"WATCHDOG=1"
_MAX_USEC_DIGITS = 18


class State(Enum):
    """The state of the process; the value is shown by `systemctl status`."""

    LISTENING = "listening"
    KEEPING = "keeping"  # writes files and keeps them up to date
    RELOADING = "reloading"
    NOT_READY = "not ready"  # listens but cannot serve
    STOPPING = "stopping"


def encode_state(state: State, summary: str, monotonic_usec: int) -> tuple[bytes, ...]:
    """Return the datagrams for a state; `summary` describes the service: `server proxying :8443 => localhost:80`."""
    status = f"STATUS={one_line(f'{state.value} | {summary}')}".encode("utf-8", "backslashreplace")
    match state:
        case State.LISTENING | State.KEEPING:
            return b"READY=1", status
        case State.NOT_READY:  # the protocol has no field for it
            return (status,)
        case State.RELOADING:  # Type=notify-reload requires both in one datagram
            return b"RELOADING=1\nMONOTONIC_USEC=%d" % monotonic_usec, status
        case State.STOPPING:
            return b"STOPPING=1", status


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float:
    """Return the seconds between keep-alives, half of the manager's limit; 0 if the watchdog is off for the process `pid`."""
    text = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    return int(text) / 2e6 if text.isascii() and text.isdigit() and len(text) <= _MAX_USEC_DIGITS else 0.0


class Notifier:
    """Sends notifications to the manager in the environment, if there is one; raises ConfigError for an invalid address.

    The socket is opened at once, because later there may be no free descriptor.
    """

    def __init__(self, environ: Mapping[str, str], pid: int, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.interval = watchdog_interval(environ, pid)
        self._clock_ns = clock_ns
        self._address = parse_notify_address(environ.get(_VARIABLE, ""))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if self._address else None

    def notify(self, state: State, summary: str) -> bool:
        """Send a state; False if the queue of the manager is full, so that the caller retries later."""
        return all(map(self._send, encode_state(state, summary, self._clock_ns() // 1000)))

    def keep_alive(self) -> None:
        """Send one watchdog keep-alive; the event loop calls this every `interval` seconds unless that is 0."""
        self._send(_KEEP_ALIVE)

    async def run_watchdog(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Send keep-alives until cancelled; `sleep` is that of the loop to be watched."""
        while self.interval:
            self.keep_alive()
            await sleep(self.interval)

    def close(self) -> None:
        """Close the socket; later notifications are dropped."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, datagram: bytes) -> bool:
        if self._socket is None:
            return True
        try:
            self._socket.sendto(datagram, self._address)  # by name each time: the manager may have restarted
        except BlockingIOError:
            return False
        except OSError:
            return True  # no manager: a retry would not help
        return True


def parse_notify_address(text: str) -> bytes:
    """Parse a path, or `@` and an abstract name; empty for anything else. Raises ConfigError if it is too long."""
    if not text.startswith(("/", "@")) or "\0" in text:
        return b""
    try:
        check_unix_path(text)
    except ConfigError as error:
        raise ConfigError(f"{_VARIABLE}: {invalid_value('address', text, str(error))}") from error
    path = os.fsencode(text)
    return b"\0" + path[1:] if text.startswith("@") else path
