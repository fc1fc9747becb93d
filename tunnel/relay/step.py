"""The steps of a connection before its relay: their interface, and the runner that executes them in order."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Protocol

from tunnel.relay.loop import Owner


class Step(Protocol):
    """An operation that a connection waits for. It calls its owner once when it ends, possibly before `start` returns."""

    def start(self) -> None:
        """Begin."""

    def abandon(self) -> None:
        """Stop, and never call the owner again."""


class StepOwner(Owner, Protocol):
    """The connection that waits for a step."""

    def step_done(self, result: object) -> None:
        """The step has succeeded with this result."""

    def step_failed(self, error: Exception, final_data: bytes = b"") -> None:
        """The step has failed; send `final_data` (a TLS alert) to the TLS peer before closing."""


class ClosedWithoutData(Exception):
    """The client closed the connection without having sent a byte, as TCP health checks do."""


class AcmeChallengeAnswered(Exception):
    """The client was an ACME server that verified a challenge (RFC 8737)."""


class NoUsableIdentity(Exception):
    """There is no valid identity to present."""


Steps = Generator[Step, Any, None]  # it yields a step and receives the result


class StepRunner:
    """Runs a generator of steps: sends it the result of each step, or raises the error of a failed step in it."""

    __slots__ = ("_is_advancing", "_pending", "_step", "_steps", "final_data")

    def __init__(self) -> None:
        self.final_data = b""  # of the step that failed
        self._steps: Steps | None = None
        self._step: Step | None = None  # the current step
        self._is_advancing = False
        self._pending: Callable[[], Step] | None = None  # how to continue after a step that ended inside its `start`

    @property
    def has_steps(self) -> bool:
        """Whether the steps are not over yet."""
        return self._steps is not None

    def run_steps(self, steps: Steps) -> None:
        """Begin with the first step; the generator catches every failure."""
        self._steps = steps
        self._advance(partial(next, steps))

    def step_done(self, result: object) -> None:
        """Continue with the result of the current step."""
        if self._steps is not None:
            self._advance(partial(self._steps.send, result))

    def step_failed(self, error: Exception, final_data: bytes = b"") -> None:
        """Raise the error of the current step in the generator."""
        if self._steps is not None:
            self.final_data = final_data
            self._advance(partial(self._steps.throw, error))

    def fail_step(self, error: Exception) -> None:
        """Abandon the current step and raise this error in the generator."""
        self.abandon_step()
        self.step_failed(error)

    def abandon_step(self) -> None:
        """Stop the current step."""
        if self._step is not None:
            self._step.abandon()

    def end_steps(self) -> None:
        """End the steps: ignore later results."""
        self._steps = self._step = None

    def _advance(self, proceed: Callable[[], Step]) -> None:
        self._pending = proceed
        if self._is_advancing:
            return  # called from inside `step.start()` below
        self._is_advancing = True
        try:
            while self._pending is not None:
                proceed, self._pending = self._pending, None
                try:
                    self._step = step = proceed()
                except StopIteration:
                    return
                step.start()
        finally:
            self._is_advancing = False


class SendQueue:
    """Bytes to send, in order.

    If the socket fails, they are dropped without an error: the next read reports it, after the last bytes from the peer.
    """

    __slots__ = ("_socket", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.unsent = b""

    def send(self, data: bytes = b"") -> None:
        """Append `data` and send as much as the socket accepts."""
        self.unsent += data
        if not self.unsent:
            return
        try:
            sent = self._socket.send(self.unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self.unsent)
        self.unsent = self.unsent[sent:]
