"""The steps of a connection before its relay: what they have in common."""

from __future__ import annotations

from typing import Protocol

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


class NoIdentity(Exception):
    """There is no identity that could be presented now."""
