"""What the process was given by whoever started it.

Knows that there may be a service manager, sockets of its making, and libraries that speak up by themselves; must not know
what is done with any of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunnel.log_capture import LogCapture
from tunnel.net.activation import ActivationSockets
from tunnel.net.holders import Holders
from tunnel.net.notify import Notifier


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """One process' own; the environment is as it was after what concerns nobody else was taken out."""

    environ: Mapping[str, str] = field(repr=False)  # may hold passwords
    inherited: ActivationSockets
    notifier: Notifier
    log_capture: LogCapture
    holders: Holders = field(default_factory=dict)  # who listened on our ports at the start; later Landlock hides them
