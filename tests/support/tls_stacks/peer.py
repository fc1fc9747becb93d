"""The command loop of the TLS peers in Python: one line per connection on standard input, its result on standard output.

A command is `VERSION PORT STEP...`; Peer.java and peer.go read the same commands. Steps: `send:N`, `recv` to the end,
`recv:N`, `slow` reading from here on, `half` for close_notify alone, `close`, `reset`, and `wait` for a line of the test.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

_LIMIT = 60.0  # seconds of every wait: generous, and never reached when things work
_READ = 65536


class Ended(Exception):
    """How the stream ended: `eof` by close_notify, `cut` by a FIN without one, or `reset`."""


class Peer(Protocol):
    """One TLS connection of one library; `recv` raises Ended and never returns nothing."""

    socket: socket.socket

    def send(self, data: bytes) -> None: ...
    def recv(self, size: int) -> bytes: ...
    def half_close(self) -> None: ...
    def close(self) -> None: ...


Open = Callable[[socket.socket, str, bool], Peer]  # ..., version, whether we serve: a handshake


@cache
def pattern(size: int) -> bytes:
    """Bytes that differ from one place to the next, the same in every peer."""
    return bytes((at ^ at >> 8 ^ at >> 16) & 255 for at in range(size))


class Conversation:
    """The steps of one command, and what was received."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._is_slow = False
        self._count = 0
        self._digest = hashlib.sha256()
        self._end = "none"

    def run(self, steps: Sequence[str]) -> str:
        """Run all steps; the line of the result."""
        for step in steps:
            name, _, size = step.partition(":")
            self._step(name, int(size or -1))
        return f"done {self._count} {self._digest.hexdigest()} {self._end}"

    def _step(self, name: str, size: int) -> None:
        match name:
            case "send":
                self._peer.send(pattern(size))
            case "recv":
                self._receive(size)
            case "slow":
                self._is_slow = True
            case "half":
                self._peer.half_close()
            case "close":
                self._peer.close()
                self._peer.socket.close()
            case "reset":
                self._peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._peer.socket.close()
            case "wait":
                say("ready")
                sys.stdin.readline()

    def _receive(self, size: int) -> None:
        """So many bytes, or all to the end if `size` is negative."""
        wanted = self._count + size
        if self._is_slow:
            time.sleep(0.05)
        try:
            while size < 0 or self._count < wanted:
                data = self._peer.recv(min(8192 if self._is_slow else _READ, wanted - self._count if size > 0 else _READ))
                self._count += len(data)
                self._digest.update(data)
                if self._is_slow:
                    time.sleep(0.0005)
        except Ended as ended:
            self._end = str(ended)
        except ConnectionResetError:
            self._end = "reset"


def say(line: str) -> None:
    """One line for the test."""
    print(line, flush=True)


def serve_commands(role: str, open_peer: Open) -> None:
    """Read commands until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0)) if role == "server" else None
    if listener is not None:
        listener.settimeout(_LIMIT)
        say(f"listening {listener.getsockname()[1]}")
    else:
        say("started")
    for line in sys.stdin:
        version, port, *steps = line.split()
        try:
            say(_converse(listener, int(port), version, steps, open_peer))
        except Exception as error:  # noqa: BLE001  # the test fails and shows it
            say(f"failed {type(error).__name__} {error}".replace("\n", " "))


def _converse(listener: socket.socket | None, port: int, version: str, steps: Sequence[str], open_peer: Open) -> str:
    sock = listener.accept()[0] if listener else socket.create_connection(("127.0.0.1", port))
    with sock:
        sock.settimeout(_LIMIT)
        return Conversation(open_peer(sock, version, listener is not None)).run(steps)
