"""One identity, written once.

Knows what is awaited and what follows; must not know how files are laid out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import trio

from tunnel.config.svid_model import FetchConfig
from tunnel.svid.atomic_directory import AtomicDirectory
from tunnel.svid.event_log import Event, EventLog
from tunnel.svid.material import build_material, describe_written, facts_of
from tunnel.svid.wait_identity import wait_identity


def run_fetch(config: FetchConfig, folder: AtomicDirectory, event_log: EventLog, say: Callable[[str], None]) -> None:
    """Write the first identity that is offered; `say` is told what a person should know meanwhile.

    Raises IdentityError when there is none in time, OutputError when it cannot be written.
    """
    trio.run(_fetch, config, folder, event_log, say)


async def _fetch(config: FetchConfig, folder: AtomicDirectory, event_log: EventLog, say: Callable[[str], None]) -> None:
    first = await wait_identity(config.source, say)
    material = build_material(first.credentials, config.output, datetime.now(UTC))
    replaced = folder.replace(material.files, material.combined)
    remarks = [*first.warnings, *(f"warning: {note}" for note in material.notes)]
    remarks += [f"{replaced.fault}: opened again"] if replaced.fault else []
    remarks += [f"{name} in {folder.path} was not ours, and has been replaced" for name in replaced.taken]
    for remark in remarks:
        event_log.tell(Event.NOTICE, remark)
    if not config.is_quiet:
        facts = facts_of(material, folder.path)
        event_log.tell(Event.WRITTEN, describe_written(material, folder.path), **facts)
