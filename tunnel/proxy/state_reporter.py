"""Reports the state of one proxy to the status port and to the service manager."""

from __future__ import annotations

from tunnel.config.model import ListenerConfig
from tunnel.net.notify import Notifier, State
from tunnel.proxy.generation import Generation
from tunnel.status.process_state import Identity, Phase, ProcessState, Reload


class StateReporter:
    """Keeps `state`, which the status port reads, and notifies the service manager of changes."""

    def __init__(self, config: ListenerConfig, notifier: Notifier) -> None:
        self._summary = f"{config.mode} proxying {config.listen or 'standard input'} => {config.target}"
        self._notifier = notifier
        self.state = ProcessState()

    def show_identity(self, generation: Generation) -> None:
        """Publish the identity that new connections present."""
        if generation.expires is not None:
            spiffe_id = generation.identity if generation.is_bound_by_expiry else ""
            identity = Identity(spiffe_id, int(generation.expires.timestamp()), generation.number)
            self.state = self.state.using(identity)

    def show_workload_api(self, error: str) -> None:
        """Publish the error of the Workload API connection, "" for none."""
        self.state = self.state.sourced(error)

    def show_identity_error(self, error: str) -> None:
        """Publish why the identity cannot be used, "" if it can."""
        self.state = self.state.failing(error)
        if self.state.phase is Phase.LISTENING:  # else `show_listening` or `show_reloaded` follows
            self._notify_listening()

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
        self._notifier.notify(State.STOPPING, f"accepting connections for {seconds:g}s more: {self._summary}")

    def show_stopping(self) -> None:
        """No more connections are accepted."""
        self._notify(State.STOPPING)
        self.state = self.state.stopping()

    def _notify_listening(self) -> None:
        if self.state.phase is Phase.LISTENING:
            self._notify(State.LISTENING)
            if self.state.identity_error:  # sent last, because `systemctl status` shows the last one
                self._notifier.notify(State.NOT_READY, f"{self.state.identity_error}: {self._summary}")

    def _notify(self, state: State) -> None:
        """Notify the service manager, but of nothing else once the proxy stops, even if a reload ends later."""
        if not self.state.is_ending or (state is State.STOPPING and self.state.phase is not Phase.STOPPING):
            self._notifier.notify(state, self._summary)
