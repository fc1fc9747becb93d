"""State of the process: phases and the transitions between them, as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Phase(Enum):
    """Phase of the process; the value is the text in the status document."""

    INITIALIZING = "initializing"
    LISTENING = "listening"
    RELOADING = "reloading"
    SHUTDOWN_DELAY = "stopping: new connections are accepted until the shutdown delay is over"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of new connections; `not_after` in seconds since the epoch, `spiffe_id` empty if it has none."""

    spiffe_id: str
    not_after: int
    generation: int


@dataclass(frozen=True, slots=True)
class Reload:
    """The end of a reload in nanoseconds since the epoch, and the error of each part: "" for success, None if not reloaded."""

    at: int
    certificates: str | None = ""
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class ProcessState:
    """The state of the process; each transition returns a new value."""

    phase: Phase = Phase.INITIALIZING
    is_listening: bool = False
    reload: Reload | None = None
    identity: Identity | None = None
    source_error: str | None = None  # of the Workload API, "" if there is none; None with another identity source
    identity_error: str = ""  # why our identity cannot be used now; "" while it is valid

    @property
    def is_ready(self) -> bool:
        """Whether a client that connects now would be served, without regard to the backend."""
        return self.is_listening and not self.is_ending and not self.identity_error

    @property
    def is_ending(self) -> bool:
        """Whether the process stops; it never goes back from that."""
        return self.phase in (Phase.SHUTDOWN_DELAY, Phase.STOPPING)

    def listening(self) -> ProcessState:
        """Connections are accepted."""
        return self if self.is_ending else replace(self, phase=Phase.LISTENING, is_listening=True)

    def reloading(self) -> ProcessState:
        """A reload has begun; clients are served as before."""
        return replace(self, phase=Phase.RELOADING) if self.is_listening and not self.is_ending else self

    def reloaded(self, outcome: Reload) -> ProcessState:
        """A reload has ended: the new state is in use, or the attempt has failed."""
        done = replace(self, reload=outcome)
        return done.listening() if self.is_listening else done

    def using(self, identity: Identity) -> ProcessState:
        """New connections use another identity."""
        return replace(self, identity=identity)

    def failing(self, identity_error: str) -> ProcessState:
        """Our identity cannot be used for this reason; with "" it can be used again."""
        return replace(self, identity_error=identity_error)

    def sourced(self, source_error: str) -> ProcessState:
        """The Workload API has this error, or with "" none."""
        return replace(self, source_error=source_error)

    def delaying_shutdown(self) -> ProcessState:
        """A stop was requested, and connections are accepted until the delay has passed."""
        return replace(self, phase=Phase.SHUTDOWN_DELAY)

    def stopping(self) -> ProcessState:
        """No more connections are accepted."""
        return replace(self, phase=Phase.STOPPING, is_listening=False)
