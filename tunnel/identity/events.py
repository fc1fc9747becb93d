"""The events of a Workload API stream."""

from __future__ import annotations

from tunnel.errors import IdentityError
from tunnel.identity.credentials import X509Context, X509Svid
from tunnel.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Updated:
    """An accepted update; `is_new` is False if it equals the previous one."""

    context: X509Context
    is_new: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejected update; the previous one stays in use."""

    error: IdentityError


@dataclass(frozen=True, slots=True)
class Overdue:
    """The rotation of an SVID is overdue and a new stream is opened; emitted once for each SVID."""

    svid: X509Svid


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream has ended; the next attempt starts in `delay` seconds."""

    code: str
    details: str
    delay: float


@dataclass(frozen=True, slots=True)
class Denied(Disconnected):
    """The agent currently issues no identity for this process."""


@dataclass(frozen=True, slots=True)
class FatalError:
    """Before the first identity, an answer that a retry cannot change; at any time, an internal error."""

    error: IdentityError
    code: str = ""  # the status of the answer


WorkloadEvent = Updated | Rejected | Overdue | Disconnected | Denied | FatalError
