"""Where the process is in its life, as values.

Knows what may follow what; must not know who is told, nor in which words. Loaded in every proxy, unlike those who tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Phase(Enum):
    """Where the process is in its life; the value is the word for it."""

    INITIALIZING = "initializing"
    LISTENING = "listening"
    RELOADING = "reloading"
    SHUTDOWN_DELAY = "stopping: new connections are accepted until the shutdown delay is over"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Identity:
    """What new connections present; `not_after` in seconds of the epoch, `spiffe_id` empty where there is none."""

    spiffe_id: str
    not_after: int
    generation: int


@dataclass(frozen=True, slots=True)
class Reload:
    """When one reload was over (nanoseconds of the epoch) and how each part went: empty, or the error; None is no part."""

    at: int
    certificates: str | None = ""
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class ProcessState:
    """What changes while the process runs; each step makes a new value."""

    phase: Phase = Phase.INITIALIZING
    is_listening: bool = False
    reload: Reload | None = None
    identity: Identity | None = None
    source_error: str | None = None  # what is wrong with the Workload API, "" if nothing; None with another source of identity
    identity_error: str = ""  # why no peer can be served now; "" while our identity is valid

    @property
    def is_ready(self) -> bool:
        """Whether we would serve a client that connects now; the backend is not looked at."""
        return self.is_listening and not self.is_ending and not self.identity_error

    @property
    def is_ending(self) -> bool:
        """Whether a stop has been asked for, which nothing takes back."""
        return self.phase in (Phase.SHUTDOWN_DELAY, Phase.STOPPING)

    def listening(self) -> ProcessState:
        """Connections are accepted."""
        return self if self.is_ending else replace(self, phase=Phase.LISTENING, is_listening=True)

    def reloading(self) -> ProcessState:
        """A reload has begun; whoever was served is served."""
        return replace(self, phase=Phase.RELOADING) if self.is_listening and not self.is_ending else self

    def reloaded(self, outcome: Reload) -> ProcessState:
        """A reload is over: what is new is live, or the attempt has failed. To be called then and not before."""
        done = replace(self, reload=outcome)
        return done.listening() if self.is_listening else done

    def using(self, identity: Identity) -> ProcessState:
        """New connections present another identity."""
        return replace(self, identity=identity)

    def failing(self, identity_error: str) -> ProcessState:
        """Our identity cannot be used, for this reason, or with "" it can be used again."""
        return replace(self, identity_error=identity_error)

    def sourced(self, source_error: str) -> ProcessState:
        """The Workload API has this trouble, or with "" none."""
        return replace(self, source_error=source_error)

    def delaying_shutdown(self) -> ProcessState:
        """A stop has been asked for, and connections are accepted a while longer."""
        return replace(self, phase=Phase.SHUTDOWN_DELAY)

    def stopping(self) -> ProcessState:
        """No more connections are accepted, for good."""
        return replace(self, phase=Phase.STOPPING, is_listening=False)
