"""The run of `tunnel dev`: serve the Workload API, and rotate SVIDs and CAs."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from tunnel.cli.output import print_output
from tunnel.config.dev_model import DevConfig, Entry
from tunnel.lazy_dataclass import dataclass
from tunnel.spiffe.endpoint import ENVIRONMENT, WorkloadEndpoint

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.devapi.api import DevWorkloadApi

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SOCKET_NAME = "tunnel-dev.sock"
_LONGEST_WAIT = 3600.0
# Comments to a shell, so that the output can be sourced as it is.
_NOTE = """\
# *** FOR DEVELOPMENT AND TESTS ONLY ***
# Every process that can open these sockets gets private keys. The CAs exist in memory only, until this process ends.
"""


@dataclass
class _Job:
    """A periodic job, one step at a time."""

    interval: float
    due: float
    steps: Iterator[tuple[str, Callable[[], None]]]


def serve(config: DevConfig) -> int:
    """Serve until SIGTERM or SIGINT, then remove the sockets; raises ConfigError if it cannot listen."""
    from tunnel.devapi.api import DevWorkloadApi

    # Blocked before any thread starts: the threads inherit the mask, so only the wait below takes the signals.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        with ExitStack() as resources:
            sockets = {
                endpoint or _default_endpoint(config.runtime_dir, resources): entries
                for endpoint, entries in config.sockets.items()
            }
            api = DevWorkloadApi(
                sockets, issuing=config.issuing, federations=config.federations, socket_mode=config.socket_mode
            )
            resources.enter_context(api)
            print_output(_NOTE + "".join(_introductions(sockets)))
            _rotate_until_signal(_jobs(api, config), is_verbose=config.is_verbose)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


def _default_endpoint(runtime_dir: str, resources: ExitStack) -> WorkloadEndpoint:
    """A private socket: in the runtime directory, or in a new directory."""
    if os.path.isabs(runtime_dir) and os.access(runtime_dir, os.W_OK | os.X_OK):
        return WorkloadEndpoint(path=str(Path(runtime_dir, _SOCKET_NAME)))
    private = resources.enter_context(tempfile.TemporaryDirectory(prefix="tunnel-dev-"))  # its mode is 0700
    return WorkloadEndpoint(path=str(Path(private, _SOCKET_NAME)))


def _introductions(sockets: Mapping[WorkloadEndpoint, Sequence[Entry]]) -> Iterator[str]:
    for endpoint, entries in sockets.items():
        names = (f"{entry.spiffe_id} (hint {entry.hint})" if entry.hint else str(entry.spiffe_id) for entry in entries)
        yield f"# {', '.join(names) or 'no identity'}\n{ENVIRONMENT}={endpoint}\n"


def _jobs(api: DevWorkloadApi, config: DevConfig) -> list[_Job]:
    now = time.monotonic()
    renewal = ("renewed the SVIDs", api.rotate_svids)
    change = (
        ("prepared the next CAs", api.prepare_authorities),
        ("activated the next CAs, renewed the SVIDs", api.activate_authorities),
        ("dropped the old CAs", api.drop_old_authorities),
    )
    intervals = ((config.rotate, cycle((renewal,))), (config.ca_rotate, cycle(change)))
    return [_Job(interval, now + interval, steps) for interval, steps in intervals if interval > 0]


def _rotate_until_signal(jobs: Sequence[_Job], *, is_verbose: bool) -> None:
    while not _signal_within(min((job.due - time.monotonic() for job in jobs), default=_LONGEST_WAIT)):
        for job in jobs:
            if job.due <= time.monotonic():
                event, step = next(job.steps)
                step()
                job.due = time.monotonic() + job.interval
                if is_verbose:
                    print_output(f"# {event}\n")


def _signal_within(seconds: float) -> bool:
    return signal.sigtimedwait(_STOP_SIGNALS, max(seconds, 0.0)) is not None
