"""State of the process and of its listeners: phases and the transitions between them, as values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum

from tunnel.lazy_dataclass import dataclass, replace

_MOST_NAMES = 3  # of listeners in one text


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
    config: str | None = None  # the configuration file


@dataclass(frozen=True, slots=True)
class TargetState:
    """The state of one target."""

    name: str
    is_healthy: bool
    opened: int  # connections, with those that are being established
    failures: int  # failed connection attempts and health checks since the start
    error: str  # of the last failure; "" if the last attempt or check succeeded


@dataclass(frozen=True, slots=True)
class PlainSource:
    """One source of plain connections: an IP address, or the name of a Unix socket."""

    source: str
    connections: int  # since it is in the table
    last_seen: float  # Unix time


@dataclass(frozen=True, slots=True)
class PlaintextState:
    """The plain clients of a listener that permits them."""

    opened: int  # connections
    total: int  # connections since the start
    sources: tuple[PlainSource, ...]  # the last one first
    forgotten: int  # sources that had to leave the table


@dataclass(frozen=True, slots=True)
class ListenerState:
    """The state of one listener."""

    name: str
    listen_address: str
    forward_address: str
    is_server: bool = True
    identity: Identity | None = None
    source_error: str | None = None  # of the Workload API, "" if there is none; None with another identity source
    identity_error: str = ""  # why our identity cannot be used now; "" while it is valid
    is_stopped: bool = False  # it accepts no more connections, while others do
    opened: int = 0  # connections
    targets: tuple[TargetState, ...] = ()
    plaintext: PlaintextState | None = None  # None if plain clients are refused


@dataclass(frozen=True, slots=True)
class ProcessState:
    """The state of the process; each transition returns a new value."""

    phase: Phase = Phase.INITIALIZING
    is_listening: bool = False
    reload: Reload | None = None
    listeners: tuple[ListenerState, ...] = ()
    has_file: bool = False  # the listeners are those of a configuration file

    @property
    def is_ready(self) -> bool:
        """Whether a client that connects now would be served by every listener, without regard to the backends."""
        return self.is_serving and all(map(self.is_listener_ready, self.listeners))

    @property
    def is_serving(self) -> bool:
        """Whether connections are accepted, and still will be when the shutdown delay is over."""
        return self.is_listening and not self.is_ending

    def is_listener_ready(self, listener: ListenerState) -> bool:
        """Whether a client of this listener would be served, without regard to the backend."""
        return self.is_serving and not listener.is_stopped and not listener.identity_error

    @property
    def is_ending(self) -> bool:
        """Whether the process stops; it never goes back from that."""
        return self.phase in (Phase.SHUTDOWN_DELAY, Phase.STOPPING)

    @property
    def identity(self) -> Identity | None:
        """The identity of the first listener that has one."""
        return next((one.identity for one in self.listeners if one.identity is not None), None)

    @property
    def source_error(self) -> str | None:
        """The errors of the Workload API connections, "" if there are none; None without the Workload API."""
        errors = [one.source_error for one in self.listeners if one.source_error is not None]
        return join_distinct(errors) if errors else None

    @property
    def identity_error(self) -> str:
        """Why the identities of listeners cannot be used now; "" while all are valid."""
        return join_distinct(one.identity_error for one in self.listeners)

    def with_listener(self, listener: ListenerState) -> ProcessState:
        """A listener is new, or has this state now."""
        if all(one.name != listener.name for one in self.listeners):
            return replace(self, listeners=(*self.listeners, listener))
        return replace(self, listeners=tuple(listener if one.name == listener.name else one for one in self.listeners))

    def without_listener(self, name: str) -> ProcessState:
        """A listener was removed."""
        return replace(self, listeners=tuple(one for one in self.listeners if one.name != name))

    def ordered(self, names: Sequence[str]) -> ProcessState:
        """The listeners in the order of their names."""
        return replace(self, listeners=tuple(sorted(self.listeners, key=lambda one: names.index(one.name))))

    def limited_to(self, names: Collection[str]) -> ProcessState:
        """The state of some listeners only; of all if there are no names."""
        return replace(self, listeners=tuple(one for one in self.listeners if one.name in names)) if names else self

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

    def delaying_shutdown(self) -> ProcessState:
        """A stop was requested, and connections are accepted until the delay has passed."""
        return replace(self, phase=Phase.SHUTDOWN_DELAY)

    def stopping(self) -> ProcessState:
        """No more connections are accepted."""
        return replace(self, phase=Phase.STOPPING, is_listening=False)


def join_by_listener(texts: Mapping[str, str]) -> str:
    """Return the texts that are not empty, each with the names of its listeners unless all have it."""
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        if text:
            names.setdefault(text, []).append(name)
    return "; ".join(text if len(own) == len(texts) else f"{list_names(own)}: {text}" for text, own in names.items())


def list_names(names: Sequence[str]) -> str:
    """Return a few of the names, and the number of the rest."""
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def join_distinct(texts: Iterable[str]) -> str:
    """Return the texts that are not empty, each once."""
    return ", ".join(dict.fromkeys(filter(None, texts)))
