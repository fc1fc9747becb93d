"""Whether the identity of a listener can be used now: it can expire, be withdrawn, or have dates that peers refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

from tunnel.errors import IdentityLoss
from tunnel.listener.generation import Generation
from tunnel.log import escape
from tunnel.time_format import format_time


class IdentityState:
    """The newest generation, and what is wrong with its identity; `clock` is wall time, `uptime` that of the loop."""

    def __init__(self, clock: Callable[[], float], uptime: Callable[[], float]) -> None:
        self.generation: Generation | None = None
        self._clock = clock
        self._uptime = uptime
        self._begins, self._ends = math.inf, -math.inf  # Unix time: when nothing is wrong with the dates
        self._withdrawn_at = 0.0  # loop time from which a withdrawn identity is no longer used; 0 if it is not withdrawn

    def use(self, generation: Generation) -> None:
        """Use this generation from now on."""
        self.generation = generation
        self._begins = generation.begins.timestamp() if generation.begins is not None else -math.inf
        self._ends = generation.expires.timestamp() if generation.expires is not None else math.inf

    @property
    def is_valid(self) -> bool:
        """Whether nothing is wrong with it; this takes a fraction of the time of asking what."""
        return self._begins <= self._clock() <= self._ends and not self._withdrawn_at

    def withdraw(self, grace: float) -> None:
        """Stop using the identity `grace` seconds after the first call."""
        if not self._withdrawn_at:
            self._withdrawn_at = self._uptime() + grace

    def confirm(self) -> None:
        """Cancel `withdraw`."""
        self._withdrawn_at = 0.0

    @property
    def withdrawn_in(self) -> float | None:
        """Seconds until a withdrawn identity is no longer used; None if it is not withdrawn."""
        return max(self._withdrawn_at - self._uptime(), 0.0) if self._withdrawn_at else None

    @property
    def loss(self) -> tuple[IdentityLoss, str] | None:
        """Why the identity can be used no more, as a reason and as a message; None if it can be used."""
        generation = self.generation
        if generation is None:
            return None
        end = generation.expires
        if end is not None and generation.is_bound_by_expiry and self._clock() > end.timestamp():
            return IdentityLoss.EXPIRED, f"identity {generation.identity} has expired at {format_time(end)}"
        if self._withdrawn_at and self._uptime() >= self._withdrawn_at:
            return IdentityLoss.WITHDRAWN, f"identity {generation.identity} has been withdrawn"
        return None

    @property
    def why_unusable(self) -> str:
        """Why new connections cannot use the identity; "" if they can."""
        if self.generation is None:
            return "no identity yet"
        loss = self.loss
        return loss[1] if loss is not None else ""

    @property
    def why_refused(self) -> str:
        """Why peers refuse our certificate from a file, which is presented although its dates are not valid."""
        generation, now = self.generation, self._clock()
        if generation is None or generation.is_bound_by_expiry:
            return ""
        if generation.expires is not None and now > generation.expires.timestamp():
            return f"certificate {escape(generation.identity)} has expired at {format_time(generation.expires)}"
        if generation.begins is not None and now < generation.begins.timestamp():
            return f"certificate {escape(generation.identity)} is not valid before {format_time(generation.begins)}"
        return ""
