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
from tunnel.identity.credentials import SvidCredentials, X509Context
from tunnel.identity.event_channel import EventChannel, open_event_channel
from tunnel.identity.events import Updated
from tunnel.identity.identity_tracker import IdentityTracker, describe_timeout

_LONG = 1.0  # seconds after which a person would like to know

_WARNING = "warning: "  # what the follower puts before a remark


@dataclass(frozen=True, slots=True)
class IdentityWait:
    """The first update that offers what was wanted, and which of it that is."""

    context: X509Context
    credentials: SvidCredentials
    warnings: tuple[str, ...]


async def wait_identity(source: WorkloadApi, say: Callable[[str], None], *, wants_all: bool = False) -> IdentityWait:
    """Wait for the identity within the source's limit; `say` is told once when that takes long.

    With `wants_all` the update holds every good SVID. The agent is asked again while it refuses or is away. Raises
    IdentityError, when the limit has passed or an answer is one that no new attempt will change.
    """
    lines: list[str] = []
    tracker = IdentityTracker(source.selection, lines.append, lambda _news: None)
    limit = source.timeout or math.inf
    async with open_event_channel(source.endpoint, source.selection, wants_all=wants_all) as events:
        with trio.move_on_after(limit):
            with trio.move_on_after(_LONG):
                return await _receive_first(events, tracker, lines)
            why = f": {tracker.problem}" if tracker.problem else ""
            say(f"waiting for an identity from {source.endpoint}{why}")
            return await _receive_first(events, tracker, lines)
    raise IdentityError(IdentityFault.TIMEOUT, describe_timeout(source.endpoint, limit, tracker.problem))


def run_with_identity(source: WorkloadApi, say: Callable[[str], None], *, wants_all: bool = False) -> IdentityWait:
    """The same for a program that does nothing else meanwhile."""
    return trio.run(partial(wait_identity, source, say, wants_all=wants_all))


async def _receive_first(events: EventChannel, tracker: IdentityTracker, lines: list[str]) -> IdentityWait:
    async for event in events:
        outcome = tracker.take(event)
        if isinstance(event, Updated) and outcome.credentials is not None:
            warnings = tuple(line for line in lines if line.startswith(_WARNING))
            return IdentityWait(event.context, outcome.credentials, warnings)
    raise AssertionError("the watcher never ends the channel")
