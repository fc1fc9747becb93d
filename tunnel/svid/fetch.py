"""Waits for the first identity, and writes it once (`svid fetch`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import trio

from tunnel.config.model import WorkloadApi
from tunnel.config.svid_model import FetchConfig
from tunnel.errors import IdentityError, IdentityFault
from tunnel.identity.credentials import SvidCredentials, X509Context
from tunnel.identity.event_channel import EventChannel, open_event_channel
from tunnel.identity.events import Updated
from tunnel.identity.identity_tracker import IdentityTracker, describe_timeout
from tunnel.identity.wait_notice import wait_with_notice
from tunnel.lazy_dataclass import dataclass
from tunnel.svid.atomic_directory import AtomicDirectory
from tunnel.svid.event_log import Event, EventLog
from tunnel.svid.update_files import build_update_files, describe_written, facts_of

_WARNING = "warning: "  # prefix of the tracker's warnings


@dataclass(frozen=True, slots=True)
class FirstIdentity:
    """The first update that offers the selected identity, and that identity."""

    context: X509Context
    credentials: SvidCredentials
    warnings: tuple[str, ...]


async def wait_identity(source: WorkloadApi, on_wait: Callable[[str], None], *, wants_all: bool = False) -> FirstIdentity:
    """Wait for the identity within the source's timeout; `on_wait` gets one line if that takes long.

    With `wants_all` the update holds every valid SVID. The watcher retries while the agent refuses or is unavailable. Raises
    IdentityError on timeout, or on an answer that no retry will change.
    """
    lines: list[str] = []
    tracker = IdentityTracker(source.selection, lines.append, lambda _news: None)
    limit = source.timeout or math.inf

    def report() -> None:
        reason = f": {tracker.problem}" if tracker.problem else ""
        on_wait(f"waiting for an identity from {source.endpoint}{reason}")

    async with open_event_channel(source.endpoint, source.selection, wants_all=wants_all) as events:
        with trio.move_on_after(limit):
            return await wait_with_notice(partial(_receive_first, events, tracker, lines), report)
    raise IdentityError(IdentityFault.TIMEOUT, describe_timeout(source.endpoint, limit, tracker.problem))


def run_with_identity(source: WorkloadApi, on_wait: Callable[[str], None], *, wants_all: bool = False) -> FirstIdentity:
    """Call `wait_identity` from synchronous code."""
    return trio.run(partial(wait_identity, source, on_wait, wants_all=wants_all))


async def _receive_first(events: EventChannel, tracker: IdentityTracker, lines: list[str]) -> FirstIdentity:
    async for event in events:
        outcome = tracker.take(event)
        if isinstance(event, Updated) and outcome.credentials is not None:
            warnings = tuple(line for line in lines if line.startswith(_WARNING))
            return FirstIdentity(event.context, outcome.credentials, warnings)
    raise AssertionError("the watcher never closes the channel")


def run_fetch(config: FetchConfig, directory: AtomicDirectory, event_log: EventLog, on_wait: Callable[[str], None]) -> None:
    """Write the first identity that is offered; `on_wait` gets one line if waiting takes long.

    Raises IdentityError if there is none in time, OutputError if it cannot be written.
    """
    first = run_with_identity(config.source, on_wait)
    update = build_update_files(first.credentials, config.output, datetime.now(UTC))
    replaced = directory.replace(update.files, update.combined)
    notices = [*first.warnings, *(f"{_WARNING}{note}" for note in update.notes)]
    notices += [f"{replaced.fault}: opened again"] if replaced.fault else []
    for notice in (*notices, *replaced.describe_foreign(directory.path)):
        event_log.write(Event.NOTICE, notice)
    if not config.is_quiet:
        facts = facts_of(update, directory.path)
        event_log.write(Event.WRITTEN, describe_written(update, directory.path), **facts)
