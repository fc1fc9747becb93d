"""The first identity, for commands that need one now.

Knows how long to wait, when to say so, and which answers end the wait; must not know what the identity is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from tunnel.config.model import WorkloadApi
from tunnel.errors import IdentityError, IdentityFault
from tunnel.identity.arrivals import Arrivals, open_arrivals
from tunnel.identity.credentials import SvidCredentials, X509Context
from tunnel.identity.follower import Follower, describe_wait
from tunnel.identity.workload import Updated

_LONG = 1.0  # seconds after which a person would like to know

_WARNING = "warning: "  # what the follower puts before a remark


@dataclass(frozen=True, slots=True)
class First:
    """The first update that offers what was wanted, and which of it that is."""

    context: X509Context
    credentials: SvidCredentials
    warnings: tuple[str, ...]


async def fetch_first(source: WorkloadApi, say: Callable[[str], None], *, wants_all: bool = False) -> First:
    """Wait for the identity within the source's limit; `say` is told once when that takes long.

    With `wants_all` the update holds every good SVID. The agent is asked again while it refuses or is away. Raises
    IdentityError, when the limit has passed or an answer is one that no new attempt will change.
    """
    lines: list[str] = []
    follower = Follower(source.selection, lines.append, lambda _news: None)
    limit = source.timeout or math.inf
    async with open_arrivals(source.endpoint, source.selection, wants_all=wants_all) as events:
        with trio.move_on_after(limit):
            with trio.move_on_after(_LONG):
                return await _receive_first(events, follower, lines)
            why = f": {follower.complaint}" if follower.complaint else ""
            say(f"waiting for an identity from {source.endpoint}{why}")
            return await _receive_first(events, follower, lines)
    raise IdentityError(IdentityFault.TIMEOUT, describe_wait(source.endpoint, limit, follower.complaint))


def run_first(source: WorkloadApi, say: Callable[[str], None], *, wants_all: bool = False) -> First:
    """The same for a program that does nothing else meanwhile."""
    return trio.run(partial(fetch_first, source, say, wants_all=wants_all))


async def _receive_first(events: Arrivals, follower: Follower, lines: list[str]) -> First:
    async for event in events:
        outcome = follower.take(event)
        if isinstance(event, Updated) and outcome.credentials is not None:
            warnings = tuple(line for line in lines if line.startswith(_WARNING))
            return First(event.context, outcome.credentials, warnings)
    raise AssertionError("the watcher never ends the channel")
