"""The steps of a connection before its relay: what they have in common, and what runs them one after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Protocol

from tunnel.relay.loop import Owner


class Step(Protocol):
    """Something that a connection waits for. It ends with one call of its owner, possibly before `start` returns."""

    def start(self) -> None:
        """Begin."""

    def abandon(self) -> None:
        """Stop: the owner is not called any more."""


class StepOwner(Owner, Protocol):
    """The connection that waits for a step."""

    def step_done(self, result: object) -> None:
        """The step has this result."""

    def step_failed(self, error: Exception, farewell: bytes = b"") -> None:
        """The step failed; `farewell` is to be sent to the TLS peer before the connection is closed."""


class ClosedWithoutData(Exception):
    """The peer closed the connection without having sent a byte, as TCP health checks do."""


class AcmeChallengeAnswered(Exception):
    """The client was an ACME server, which has seen the certificate that it asked for (RFC 8737)."""


class NoUsableIdentity(Exception):
    """There is no identity that could be presented now."""


Steps = Generator[Step, Any, None]  # what is sent to it is the result of the step that it has yielded


class StepRunner:
    """Runs a generator of steps: sends it the result of each step, and raises in it what made a step fail."""

    __slots__ = ("_is_advancing", "_pending", "_step", "_steps", "farewell")

    def __init__(self) -> None:
        self.farewell = b""  # of the step that failed
        self._steps: Steps | None = None
        self._step: Step | None = None  # that is waited for
        self._is_advancing = False
        self._pending: Callable[[], Step] | None = None  # how to go on after a step that ended before its `start` returned

    @property
    def has_steps(self) -> bool:
        """Whether a step is waited for."""
        return self._steps is not None

    def run_steps(self, steps: Steps) -> None:
        """Begin with the first step; the generator catches every failure."""
        self._steps = steps
        self._advance(partial(next, steps))

    def step_done(self, result: object) -> None:
        """The step that is waited for has this result."""
        if self._steps is not None:
            self._advance(partial(self._steps.send, result))

    def step_failed(self, error: Exception, farewell: bytes = b"") -> None:
        """The step that is waited for failed."""
        if self._steps is not None:
            self.farewell = farewell
            self._advance(partial(self._steps.throw, error))

    def fail_step(self, error: Exception) -> None:
        """Make the step that is waited for fail with this error."""
        self.abandon_step()
        self.step_failed(error)

    def abandon_step(self) -> None:
        """Stop the step that is waited for."""
        if self._step is not None:
            self._step.abandon()

    def end_steps(self) -> None:
        """Ignore results from now on."""
        self._steps = self._step = None

    def _advance(self, proceed: Callable[[], Step]) -> None:
        self._pending = proceed
        if self._is_advancing:
            return  # the step has ended inside of its `start`, which is called below
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
