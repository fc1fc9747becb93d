"""What the process has received from its parent: environment, sockets, service manager."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunnel.log_capture import LogCapture
from tunnel.net.activation import ActivationSockets
from tunnel.net.holders import Holders
from tunnel.net.notify import Notifier


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """The context of one process; `environ` is without the variables that are meant for this process only."""

    environ: Mapping[str, str] = field(repr=False)  # may hold passwords
    inherited: ActivationSockets
    notifier: Notifier
    log_capture: LogCapture
    holders: Holders = field(default_factory=dict)  # of our ports at the start; later Landlock hides them
