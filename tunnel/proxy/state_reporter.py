"""Reports the state of the process and of its listeners to the status ports and to the service manager."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunnel.config.model import ListenerConfig
from tunnel.lazy_dataclass import replace
from tunnel.listener.generation import Generation
from tunnel.net.notify import Notifier, State
from tunnel.status.process_state import Identity, ListenerState, Phase, ProcessState, Reload

_MOST_SUMMARIZED = 3  # listeners that are described one by one to the service manager


class StateReporter:
    """Keeps `state`, which the status ports read, and notifies the service manager of changes."""

    def __init__(self, listeners: Sequence[ListenerConfig], notifier: Notifier) -> None:
        self._notifier = notifier
        self._listeners: dict[str, ListenerConfig] = {}
        self.on_identity_change: Callable[[], None] | None = None
        self.state = ProcessState()
        for listener in listeners:
            self.show_listener(listener)

    def show_listener(self, config: ListenerConfig) -> None:
        """A listener is new, or has a new configuration."""
        self._listeners[config.name] = config
        addresses = {"listen_address": str(config.listen or "-"), "forward_address": config.target_name}
        self._change(config.name, is_server=config.is_server, **addresses)

    def show_removed(self, name: str) -> None:
        """A listener was removed."""
        del self._listeners[name]
        self.state = self.state.without_listener(name)

    def order(self, names: Sequence[str]) -> None:
        """Show the listeners in this order."""
        self.state = self.state.ordered(names)

    def show_identity(self, name: str, generation: Generation) -> None:
        """Publish the identity that new connections of a listener present."""
        identity = None
        if generation.expires is not None:
            spiffe_id = generation.identity if generation.is_bound_by_expiry else ""
            identity = Identity(spiffe_id, int(generation.expires.timestamp()), generation.number)
        self._change(name, identity=identity)

    def show_file(self) -> None:
        """The listeners are those of a configuration file."""
        self.state = replace(self.state, has_file=True)

    def show_workload_api(self, name: str, error: str | None) -> None:
        """Publish the error of the Workload API connection of a listener, "" for none; None with another identity source."""
        self._change(name, source_error=error)

    def show_identity_error(self, name: str, error: str) -> None:
        """Publish why the identity of a listener cannot be used, "" if it can."""
        before = self.state.identity_error
        self._change(name, identity_error=error)
        if self.state.identity_error == before:
            return
        if self.state.phase is Phase.LISTENING:  # else `show_listening` or `show_reloaded` follows
            self._notify_listening()
        if self.on_identity_change is not None:
            self.on_identity_change()

    def show_listening(self) -> None:
        """Connections are accepted."""
        self.state = self.state.listening()
        self._notify_listening()

    def show_reloading(self) -> None:
        """A reload has begun."""
        self.state = self.state.reloading()
        self._notify(State.RELOADING)

    def show_reloaded(self, outcome: Reload) -> None:
        """A reload is over."""
        self.state = self.state.reloaded(outcome)
        self._notify_listening()

    def show_shutdown_delay(self, seconds: float) -> None:
        """A stop was requested; connections are still accepted for so many seconds."""
        self.state = self.state.delaying_shutdown()
        self._notifier.notify(State.STOPPING, f"accepting connections for {seconds:g}s more: {self._summary()}")

    def show_stopping(self) -> None:
        """No more connections are accepted."""
        self._notify(State.STOPPING)
        self.state = self.state.stopping()

    def show_stopped(self, name: str) -> None:
        """A listener accepts no more connections, while others do."""
        self._change(name, is_stopped=True)

    def _change(self, name: str, **fields: object) -> None:
        known = next((one for one in self.state.listeners if one.name == name), ListenerState(name, "", ""))
        self.state = self.state.with_listener(replace(known, **fields))  # type: ignore[arg-type]  # names of its fields

    def _notify_listening(self) -> None:
        if self.state.phase is Phase.LISTENING:
            self._notify(State.LISTENING)
            if self.state.identity_error:  # sent last, because `systemctl status` shows the last one
                self._notifier.notify(State.NOT_READY, f"{self.state.identity_error}: {self._summary()}")

    def _notify(self, state: State) -> None:
        """Notify the service manager, but of nothing else once the proxy stops, even if a reload ends later."""
        if not self.state.is_ending or (state is State.STOPPING and self.state.phase is not Phase.STOPPING):
            self._notifier.notify(state, self._summary())

    def _summary(self) -> str:
        listeners = list(self._listeners.values())
        if len(listeners) > _MOST_SUMMARIZED:
            servers = sum(listener.is_server for listener in listeners)
            return f"{len(listeners)} listeners: {servers} servers, {len(listeners) - servers} clients"
        return ", ".join(f"{one.mode} proxying {one.listen or 'standard input'} => {one.target_name}" for one in listeners)
