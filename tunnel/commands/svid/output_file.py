"""The flags of the file for a token or for bundles, and how it is written; shared by `svid jwt` and `svid jwt bundles`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tunnel.cli.command import Arguments, Flag, option
from tunnel.cli.output import print_message
from tunnel.commands.svid.files import parse_group
from tunnel.config.model import WorkloadApi
from tunnel.config.svid_model import OutputFile
from tunnel.config.values import format_mode, or_none
from tunnel.errors import ConfigError, invalid_value

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.identity.workload_calls import WorkloadCalls
    from tunnel.svid.file_refresher import FileRefresher

T = TypeVar("T")

_RENEWAL_LIMIT = 5.0  # seconds for one attempt; while the old contents are valid, a failure is logged and not waited out

GROUP = option(
    "group",
    "Group of the file, by name or number",
    parse_group,
    None,
    placeholder="GROUP",
    default_text="the system's choice",
)


def out_option(summary: str) -> Flag[str | None]:
    """The flag `--out`."""
    return option("out", summary, or_none(_parse_file), None, placeholder="FILE")


def mode_option(parse: Callable[[str], int], summary: str, default: int) -> Flag[int]:
    """The flag `--mode`."""
    return option("mode", summary, parse, default, placeholder="MODE", default_text=format_mode(default))


def build_file(arguments: Arguments, out: Flag[str | None], mode: Flag[int], watch: Flag[bool]) -> OutputFile | None:
    """The file, None without `--out`; raises ConfigError for other flags of the file without it."""
    path = arguments[out]
    if path is not None:
        return OutputFile(path, arguments[mode], arguments[GROUP], arguments[watch])
    flags: tuple[Flag[Any], ...] = (watch, mode, GROUP)
    for flag in flags:
        if arguments.is_given(flag):
            raise ConfigError(f"--{flag.name} needs --out FILE")
    return None


def _parse_file(text: str) -> str:
    if not text or "\0" in text or text.endswith("/"):
        raise invalid_value("file", text)
    return text


def open_calls(source: WorkloadApi) -> WorkloadCalls:
    """The calls of the Workload API, with messages on standard error while it is not available."""
    from tunnel.identity.workload_calls import WorkloadCalls

    return WorkloadCalls(source.endpoint, limit=source.timeout, on_wait=print_message)


def write_file(
    kind: Callable[..., FileRefresher[T]],
    fetch: Callable[[WorkloadCalls, bool], T],
    encode: Callable[[T], str],
    file: OutputFile,
    *,
    source: WorkloadApi,
    is_json: bool,
    environ: Mapping[str, str],
) -> int:
    """Write what is fetched to the file, once or until a signal; the exit code."""
    from tunnel.atomic_file import AtomicFile
    from tunnel.identity.workload_calls import WorkloadCalls
    from tunnel.net.notify import Notifier
    from tunnel.svid.event_log import Event, EventFormat, EventLog
    from tunnel.svid.exposure import list_exposures

    written = AtomicFile(file.path, file.mode, file.group)
    form = EventFormat.LOG if file.is_watched else EventFormat.PLAIN
    event_log = EventLog(EventFormat.JSON if is_json else form)
    for exposure in list_exposures(os.path.dirname(file.path)):
        event_log.write(Event.NOTICE, f"warning: {exposure}")
    first = WorkloadCalls(source.endpoint, limit=source.timeout, on_wait=lambda text: event_log.write(Event.UNAVAILABLE, text))
    later = WorkloadCalls(source.endpoint, limit=_RENEWAL_LIMIT)

    def stop() -> None:
        first.stop()
        later.stop()

    refresher = kind(
        fetch_first=lambda: fetch(first, True),
        fetch_next=lambda: fetch(later, False),
        stop=stop,
        write=lambda found: written.write(encode(found)),
        find_fault=written.find_fault,
        write_event=event_log.write,
        notifier=Notifier(environ if file.is_watched else {}, os.getpid()),
    )
    if file.is_watched:
        refresher.run_blocking()
    else:
        refresher.write_once()
    return 0
