"""How the process fares, and everyone who is told of it when that changes.

Knows the steps of its life and what each of them says to the status port and to the service manager; must not know what
leads to a step. The status port reads `standing`; the service manager is told.
"""

from __future__ import annotations

from tunnel.config.model import ProxyConfig
from tunnel.net.notify import Notifier, State
from tunnel.proxy.generation import Generation
from tunnel.status.process_state import Identity, Phase, ProcessState, Reload


class StateReporter:
    """The state of one proxy."""

    def __init__(self, config: ProxyConfig, notifier: Notifier) -> None:
        mode = "server" if config.is_server else "client"
        self._summary = f"{mode} proxying {config.listen or 'standard input'} => {config.target}"
        self._notifier = notifier
        self.standing = ProcessState()

    def show_identity(self, generation: Generation) -> None:
        """New connections present another identity, or show none."""
        if generation.expires is not None:
            spiffe_id = generation.identity if generation.is_bound_by_expiry else ""
            identity = Identity(spiffe_id, int(generation.expires.timestamp()), generation.number)
            self.standing = self.standing.using(identity)

    def show_workload_api(self, error: str) -> None:
        """The Workload API has this trouble, or with "" none."""
        self.standing = self.standing.sourced(error)

    def show_identity_error(self, error: str) -> None:
        """Our identity cannot be used, for this reason, or with "" it can be used again."""
        self.standing = self.standing.failing(error)
        if self.standing.phase is Phase.LISTENING:  # else it is told when the step is over
            self._tell_listening()

    def show_listening(self) -> None:
        """Connections are accepted."""
        self.standing = self.standing.listening()
        self._tell_listening()

    def show_reloading(self) -> None:
        """A reload has begun."""
        self.standing = self.standing.reloading()
        self._tell(State.RELOADING)

    def show_reloaded(self, outcome: Reload) -> None:
        """A reload is over, and what is new is live."""
        self.standing = self.standing.reloaded(outcome)
        self._tell_listening()

    def show_shutdown_delay(self, seconds: float) -> None:
        """A stop has been asked for, and connections are accepted for so many seconds more."""
        self.standing = self.standing.delaying_shutdown()
        self._notifier.notify(State.STOPPING, f"accepting connections for {seconds:g}s more: {self._summary}")

    def show_stopping(self) -> None:
        """No more connections are accepted, for good."""
        self._tell(State.STOPPING)
        self.standing = self.standing.stopping()

    def _tell_listening(self) -> None:
        if self.standing.phase is Phase.LISTENING:
            self._tell(State.LISTENING)
            if self.standing.identity_error:  # the last word is what `systemctl status` shows
                self._notifier.notify(State.NOT_READY, f"{self.standing.identity_error}: {self._summary}")

    def _tell(self, state: State) -> None:
        """Once it is stopping it stays so, even if a reload ends later."""
        if not self.standing.is_ending or (state is State.STOPPING and self.standing.phase is not Phase.STOPPING):
            self._notifier.notify(state, self._summary)
