"""One worker, as its parent sees it: the process, the channel, and what it has been sent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from tunnel.errors import WorkerError, describe_os_error
from tunnel.interpreter import isolated_argv
from tunnel.listener.peer_limits import PeerKey, PeerLimits
from tunnel.relay.loop import Loop
from tunnel.workers.channel import Channel
from tunnel.workers.codec import decode_limited
from tunnel.workers.messages import FROM_WORKER

_decode = decode_limited(FROM_WORKER)
_MAIN: Final = "tunnel.workers.worker_process:main"


class WorkerHandle:
    """A worker process from its start to its end; raises WorkerError if it cannot be started."""

    def __init__(
        self,
        index: int,
        loop: Loop,
        on_message: Callable[[WorkerHandle, object], None],
        on_ended: Callable[[WorkerHandle, Exception | None], None],
    ) -> None:
        self.index = index
        self.began = loop.clock()
        self.is_started = False  # it has said so
        self.sent: set[int] = set()  # IDs of credentials that it has
        self.reported = 0  # the number of its last report
        self.dropped = 0  # lines and events
        self.crashed = 0  # bugs that belong to no tunnel
        self._counted: dict[
            tuple[int, PeerKey], list[PeerLimits | None]
        ] = {}  # connections by tunnel and peer; None: no limits
        self._process, sock = _start()
        self.channel = Channel(
            loop,
            sock,
            _decode,
            lambda message, _sock: on_message(self, message),
            lambda crash: on_ended(self, crash),
        )

    def count_peer(self, tunnel: int, peer: PeerKey, limits: PeerLimits | None) -> None:
        """A connection of a peer is counted by these limits until `release_peer`, also if a reload replaces them."""
        self._counted.setdefault((tunnel, peer), []).append(limits)

    def release_peer(self, tunnel: int, peer: PeerKey) -> None:
        """A connection of a peer has ended."""
        counted = self._counted.get((tunnel, peer), [])
        if counted and (limits := counted.pop()) is not None:
            limits.release(peer)
        if not counted:
            self._counted.pop((tunnel, peer), None)

    def release_peers(self) -> None:
        """All connections have ended."""
        for tunnel, peer in [key for key, counted in self._counted.items() for _ in counted]:
            self.release_peer(tunnel, peer)

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    def end(self) -> str:
        """Kill the process if it still runs, and describe how it has ended."""
        self.channel.close()
        try:
            code = self._process.wait(_EXIT_TIME)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()


_EXIT_TIME: Final = 0.2  # seconds between the end of the channel and that of the process


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a worker, which inherits only its end of the channel and standard error; return it and our end."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603  # our own program
                isolated_argv(_MAIN),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=sys.stderr.fileno(),
                start_new_session=True,  # signals of a terminal are for the parent
                env=os.environ,
            )
        except OSError as error:
            ours.close()
            raise WorkerError(f"a worker cannot be started: {describe_os_error(error)}") from error
    return process, ours
