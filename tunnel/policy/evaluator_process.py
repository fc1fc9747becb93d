"""One evaluator: a child process that evaluates a policy, its stream, and its limits of time and memory.

Deadlines are on the clock of `time.monotonic`.
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
from tunnel.policy.evaluator import FrameParser, encode_frame

_TICK = 0.05  # seconds between two checks of the memory of a busy child; it can grow by about 20 MiB meanwhile
_PIECE = 64 * 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MISSING = "Rego policies need the engine regopy: pip install 'spiffe-tunnel[opa]'"


class Evaluator:
    """A child process: the constructor starts it, `load` compiles a policy, `evaluate` is then allowed until an error."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._base = 0
        self._parser = FrameParser()
        self._is_dead = False
        try:
            self._process, self._channel = _start()
        except OSError as error:
            raise PolicyError(PolicyFault.ENGINE, f"cannot start the evaluator: {error}") from error

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    @property
    def is_dead(self) -> bool:
        """Whether it was killed or has failed."""
        return self._is_dead

    def load(self, source: PolicySource, query: str, deadline: float) -> None:
        """Compile a policy; raises PolicyError with one line."""
        modules = [[module.name, module.text] for module in source.modules]
        answer = self._exchange({"modules": modules, "data": source.data, "query": query}, deadline)
        if "ready" in answer:
            self._base = self._resident()
            return
        self.kill()
        if "missing" in answer:
            raise PolicyError(PolicyFault.NO_ENGINE, f"{_MISSING} ({answer['missing']})")
        raise PolicyError(PolicyFault.INVALID, answer["invalid"])

    def evaluate(self, term: str, deadline: float) -> bool:
        """Whether the policy admits this input, in JSON; raises PolicyError if the evaluation fails or times out."""
        answer = self._exchange(term, deadline)
        if "error" in answer:
            raise PolicyError(PolicyFault.EVALUATION, answer["error"])
        return answer["allowed"] is True

    def kill(self) -> None:
        """Kill the process; a pending `evaluate` raises PolicyError. `reap` must still be called."""
        self._is_dead = True
        self._process.kill()

    def reap(self) -> None:
        """Wait for a killed process and close its stream; no `evaluate` may be pending."""
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
            raise PolicyError(PolicyFault.ENGINE, f"the evaluator has exited: {self._describe_exit()}") from error

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT, deadline)
            view = view[self._channel.send(view) :]

    def _wait(self, event: int, deadline: float) -> None:
        """Wait until the stream is ready; raises PolicyError at the deadline or the memory limit."""
        poll = select.poll()
        poll.register(self._channel, event)
        while not poll.poll(max(0.0, min(_TICK, deadline - time.monotonic())) * 1000):
            if time.monotonic() >= deadline:
                raise PolicyError(PolicyFault.TIMEOUT, "evaluation timed out")
            if self._resident() - self._base > self._memory:
                raise PolicyError(PolicyFault.OVER_LIMIT, f"more than {self._memory >> 20} MiB of memory used")

    def _resident(self) -> int:
        """Return the resident memory of the child in bytes, 0 after it has exited."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0

    def _describe_exit(self) -> str:
        status = self._process.poll()
        return "killed" if status is None or status == -9 else f"signal {-status}" if status < 0 else f"status {status}"


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the child, which inherits only its end of the stream; return it and our end."""
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
