"""`tunnel svid fetch`, `watch` and `show`: the identity itself, in files or on a terminal.

Knows the order of a start and what is printed where; must not know certificates or how files are laid out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from tunnel.child.probe import SignalProbe
from tunnel.cli.output import say, say_to_person, show
from tunnel.cli.parser import Arguments, Command
from tunnel.commands.svid import command as svid
from tunnel.config.svid_model import FetchConfig, Output, ShowConfig, WatchConfig
from tunnel.errors import TunnelError

if TYPE_CHECKING:  # loaded when the line is known to be a good one
    from tunnel.svid.atomic_directory import AtomicDirectory
    from tunnel.svid.event_log import EventLog


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Do it; 0, or 1 with one line on standard error, or the command's own code. Raises ConfigError for a wrong line."""
    job = _job_of(command, arguments, environ)
    try:
        return job()
    except TunnelError as error:
        say(f"error: {error}")
        return 1


def _job_of(command: Command, arguments: Arguments, environ: Mapping[str, str]) -> Callable[[], int]:
    if command is svid.FETCH:
        return partial(_fetch, svid.build_fetch(arguments))
    if command is svid.WATCH:
        return partial(_watch, svid.build_watch(arguments), environ)
    return partial(_show, svid.build_show(arguments))


def _fetch(config: FetchConfig) -> int:
    from tunnel.svid.event_log import EventLog, Form
    from tunnel.svid.fetch import run_fetch

    event_log = EventLog(Form.JSON if config.is_json else Form.PLAIN)
    with closing(_open_folder(config.output, event_log)) as folder:
        run_fetch(config, folder, event_log, say_to_person)
    return 0


def _watch(config: WatchConfig, environ: Mapping[str, str]) -> int:
    with ExitStack() as things:
        probe = things.enter_context(closing(SignalProbe())) if config.child else None  # before there are threads
        from tunnel.svid.event_log import EventLog, Form
        from tunnel.svid.watch import run_watch

        event_log = EventLog(Form.JSON if config.is_json else Form.LOG)
        folder = things.enter_context(closing(_open_folder(config.output, event_log)))
        return run_watch(config, folder, event_log, environ, probe)


def _open_folder(output: Output, event_log: EventLog) -> AtomicDirectory:
    from tunnel.svid.atomic_directory import open_atomic_directory
    from tunnel.svid.event_log import Event
    from tunnel.svid.exposure import list_exposures

    folder = open_atomic_directory(output.folder, output.group)
    for exposure in list_exposures(output.folder, *([os.path.dirname(output.combined)] if output.combined else [])):
        event_log.tell(Event.NOTICE, f"warning: {exposure}")
    return folder


def _show(config: ShowConfig) -> int:
    from tunnel.svid.material import encode_certificates
    from tunnel.svid.report import choose_svids, describe_update, report_update
    from tunnel.svid.wait_identity import run_with_identity

    is_open = config.source.selection.is_open()
    first = run_with_identity(config.source, say_to_person, wants_all=is_open)
    svids = choose_svids(first.context, first.credentials.svid, is_open=is_open)
    if config.is_pem:
        show(b"".join(encode_certificates(one.chain) for one in svids).decode())
    elif config.is_json:
        show(json.dumps(report_update(svids, first.context), indent=2) + "\n")
    else:
        show(describe_update(svids, first.context, datetime.now(UTC)))
    return 0
