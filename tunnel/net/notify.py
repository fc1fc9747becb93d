"""What a service manager is told (sd_notify(3)): ready, reloading, stopping, and that the event loop still turns.

Knows the datagrams and where they go; must not know what leads to a state. Nothing here waits and nothing here fails: a
manager that does not listen must not stop the traffic. The watchdog's beat is not unconditional: it is sent by whoever runs the
event loop, from the loop's own thread, so that a loop that hangs falls silent and the manager restarts the process.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum

from tunnel.errors import ConfigError
from tunnel.log import escape, one_line
from tunnel.unix_path import check_unix_path

_VARIABLE = "NOTIFY_SOCKET"

_BEAT = b"WATCHDOG=1"
_MAX_USEC_DIGITS = 18


class State(Enum):
    """What the process is doing; the value is the word that `systemctl status` shows."""

    LISTENING = "listening"
    KEEPING = "keeping"  # files, for others
    RELOADING = "reloading"
    NOT_READY = "not ready"  # it listens, and cannot serve
    STOPPING = "stopping"


def encode_state(state: State, summary: str, monotonic_usec: int) -> tuple[bytes, ...]:
    """The datagrams that announce a state; `summary` says of what, as in `server proxying :8443 => localhost:80`."""
    status = f"STATUS={one_line(f'{state.value} | {summary}')}".encode("utf-8", "backslashreplace")
    match state:
        case State.LISTENING | State.KEEPING:
            return b"READY=1", status
        case State.NOT_READY:  # the manager has no word of its own for it
            return (status,)
        case State.RELOADING:  # Type=notify-reload wants both in one datagram
            return b"RELOADING=1\nMONOTONIC_USEC=%d" % monotonic_usec, status
        case State.STOPPING:
            return b"STOPPING=1", status


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float:
    """Seconds between two beats, half of what the manager tolerates; 0 when it does not watch the process `pid`."""
    text = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    return int(text) / 2e6 if text.isascii() and text.isdigit() and len(text) <= _MAX_USEC_DIGITS else 0.0


class Notifier:
    """Tells one manager; does nothing when there is none. Opens its socket at once: later there may be no descriptor left.

    Raises ConfigError for an address that no socket can have.
    """

    def __init__(self, environ: Mapping[str, str], pid: int, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.interval = watchdog_interval(environ, pid)
        self._clock_ns = clock_ns
        self._address = parse_notify_address(environ.get(_VARIABLE, ""))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if self._address else None

    def tell(self, state: State, summary: str) -> bool:
        """Announce a state; False if the manager has no room for it now, and it is worth telling again a little later."""
        return all(map(self._send, encode_state(state, summary, self._clock_ns() // 1000)))

    def beat(self) -> None:
        """Tell the watchdog that the loop turns; to be called every `interval` seconds, if that is not 0, by the loop."""
        self._send(_BEAT)

    async def keep_beating(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Beat until cancelled, in the loop that `sleep` belongs to: one that hangs falls silent."""
        while self.interval:
            self.beat()
            await sleep(self.interval)

    def close(self) -> None:
        """Tell no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, datagram: bytes) -> bool:
        if self._socket is None:
            return True
        try:
            self._socket.sendto(datagram, self._address)  # by its name each time: the manager may have been replaced
        except BlockingIOError:
            return False
        except OSError:
            return True  # nobody is there: telling again would not help
        return True


def parse_notify_address(text: str) -> bytes:
    """A path or, behind `@`, an abstract name; empty for what is neither. Raises ConfigError for one that is too long."""
    if not text.startswith(("/", "@")) or "\0" in text:
        return b""
    try:
        check_unix_path(text)
    except ConfigError as error:
        raise ConfigError(f'{_VARIABLE}: invalid address "{escape(text)}": {error}') from error
    path = os.fsencode(text)
    return b"\0" + path[1:] if text.startswith("@") else path
