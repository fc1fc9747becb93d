"""One evaluator: a child process, its stream, and the limits it lives under.

Knows how it is started, asked, watched and killed; must not know certificates or other evaluators. Deadlines are on the
clock of time.monotonic.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tunnel.errors import PolicyError, PolicyFault
from tunnel.interpreter import isolated_argv
from tunnel.policy.bundle import PolicySource
from tunnel.policy.frames import FrameParser, encode_frame

_TICK = 0.05  # seconds between two looks at a busy child's memory; it grows by some 20 MiB meanwhile
_PIECE = 64 * 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MISSING = "Rego policies need the engine regopy: pip install 'spiffe-tunnel[opa]'"


class Evaluator:
    """Started by the constructor; good for questions once `load` has returned, and for none after an error."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._base = 0
        self._parser = FrameParser()
        self._is_dead = False
        try:
            self._process, self._channel = _start()
        except OSError as error:
            raise PolicyError(PolicyFault.ENGINE, f"the evaluator cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def is_dead(self) -> bool:
        """Whether it has been killed, or has failed."""
        return self._is_dead

    def load(self, source: PolicySource, query: str, deadline: float) -> None:
        """Have a policy compiled; raises PolicyError with one line about what is wrong with it."""
        modules = [[module.name, module.text] for module in source.modules]
        answer = self._exchange({"modules": modules, "data": source.data, "query": query}, deadline)
        if "ready" in answer:
            self._base = self._resident()
            return
        self.kill()
        if "missing" in answer:
            raise PolicyError(PolicyFault.NO_ENGINE, f"{_MISSING} ({answer['missing']})")
        raise PolicyError(PolicyFault.INVALID, answer["refused"])

    def ask(self, term: str, deadline: float) -> bool:
        """Whether the policy admits this input, JSON; raises PolicyError when it cannot say, or not in time."""
        answer = self._exchange(term, deadline)
        if "error" in answer:
            raise PolicyError(PolicyFault.EVALUATION, answer["error"])
        return answer["allowed"] is True

    def kill(self) -> None:
        """End it, whatever it does; whoever waits for its answer gets an error. `reap` is still due."""
        self._is_dead = True
        self._process.kill()

    def reap(self) -> None:
        """Take back a killed process and its stream; nobody may be asking it any more."""
        self._process.wait()
        self._channel.close()

    def _exchange(self, message: Any, deadline: float) -> dict[str, Any]:
        try:
            self._send(encode_frame(message), deadline)
            while True:
                self._wait(select.POLLIN, deadline)
                data = self._channel.recv(_PIECE)
                if not data:
                    raise ConnectionResetError
                answer = self._parser.feed(data)
                if answer is not None:
                    return dict(answer)
        except PolicyError:
            self.kill()
            raise
        except ConnectionError as error:
            self.kill()
            raise PolicyError(PolicyFault.ENGINE, f"the evaluator is gone: {self._how_it_ended()}") from error

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT, deadline)
            view = view[self._channel.send(view) :]

    def _wait(self, event: int, deadline: float) -> None:
        """Until the stream is ready; raises PolicyError at the deadline or at the limit of memory."""
        poll = select.poll()
        poll.register(self._channel, event)
        while not poll.poll(max(0.0, min(_TICK, deadline - time.monotonic())) * 1000):
            if time.monotonic() >= deadline:
                raise PolicyError(PolicyFault.TIMEOUT, "no answer in time")
            if self._resident() - self._base > self._memory:
                raise PolicyError(PolicyFault.OVER_LIMIT, f"more than {self._memory >> 20} MiB of memory used")

    def _resident(self) -> int:
        """Bytes of memory that the child occupies; 0 once it is gone."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0

    def _how_it_ended(self) -> str:
        status = self._process.poll()
        return "killed" if status is None or status == -9 else f"signal {-status}" if status < 0 else f"status {status}"


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The child, with nothing of ours but its end of the stream; and our end."""
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603  # our own program
                isolated_argv("tunnel.policy.evaluator:main"),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
    return process, ours
