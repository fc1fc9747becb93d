"""The control plane of one listener: its configuration, its policy, and the tunnel that carries its connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from tunnel.config.model import ListenerConfig, NameResolution
from tunnel.errors import ConfigError, TargetError
from tunnel.listener.generation import Generation, GenerationBuilder, GenerationConfig, plan_generations
from tunnel.listener.targets import Resolved, ResolveLater, resolve_target
from tunnel.listener.tunnel_control import TunnelControl
from tunnel.log import escape
from tunnel.net.address import TargetAddress
from tunnel.net.listen import Listener
from tunnel.pkix.revocation import Warn
from tunnel.proxy.reloadable_policy import ReloadablePolicy
from tunnel.proxy.state_reporter import StateReporter

if TYPE_CHECKING:  # loaded only when a certificate comes from an ACME server
    from tunnel.tls.acme_challenge import AcmeChallenges


NewTunnel = Callable[[ListenerConfig, ResolveLater], TunnelControl]
ResolveFor = Callable[[TargetAddress, NameResolution, Callable[[Resolved], object]], object]


class ProxyListener:
    """One listener, from its first generation to its close."""

    def __init__(
        self,
        config: ListenerConfig,
        new_tunnel: NewTunnel,
        resolve_later: ResolveFor,
        state_reporter: StateReporter,
        policy: ReloadablePolicy | None,
        warn: Warn,
    ) -> None:
        self.config = config
        self._resolve = resolve_later
        self._has_changed = trio.Event()  # the configuration
        self._health_checks = trio.CancelScope()
        self.bound: Any = None  # the address of the listening socket
        self._state_reporter: StateReporter | None = state_reporter
        self.policy = policy
        self._warn = warn
        self.tunnel = new_tunnel(config, self._resolve_later)
        self.tunnel.on_identity_error = self._show_identity_error
        self._watch_policy()

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self.config.name

    @property
    def generation_config(self) -> GenerationConfig:
        """The configuration of its generations."""
        return plan_generations(self.config, self.policy.rule if self.policy is not None else None, self._warn)

    async def check_target(self, *, is_required: bool) -> None:
        """Check that a target's name can be resolved; the addresses are not kept, because they may change.

        If no name can be resolved: raises ConfigError if that is required, else logs a warning.
        """
        if not self.config.is_resolved_early or self.config.outbound is not None:
            return
        failures = [error for target in self.config.targets if (error := await self._try_to_resolve(target)) is not None]
        if is_required and len(failures) == len(self.config.targets):
            raise ConfigError(f"invalid target address: {failures[0]}") from failures[0]
        for failure in failures:
            self.tunnel.log.write(f"warning: target cannot be resolved: {escape(str(failure))}")
        if len(failures) < len(self.config.targets):
            self.tunnel.log.info(f"using target address {self.config.target_name}")

    async def _try_to_resolve(self, target: TargetAddress) -> TargetError | None:
        try:
            await trio.to_thread.run_sync(resolve_target, target, self.config.resolution, abandon_on_cancel=True)
        except TargetError as error:
            return error
        return None

    async def run_health_checks(self) -> None:
        """Check the targets at intervals if there are several, until `detach`."""
        with self._health_checks:
            while True:
                self._has_changed = trio.Event()
                async with trio.open_nursery() as nursery:
                    if self.tunnel.targets.only is None:
                        from tunnel.listener.health_checks import run_health_checks

                        nursery.start_soon(run_health_checks, self.tunnel)
                    await self._has_changed.wait()
                    nursery.cancel_scope.cancel()

    def _resolve_later(self, address: TargetAddress, answer: Callable[[Resolved], object]) -> None:
        self._resolve(address, self.config.resolution, answer)

    def build(self, builder: GenerationBuilder) -> Generation:
        """Build a generation; raises IdentityError."""
        return builder.build(self.generation_config, self.tunnel.generation)

    def use(self, generation: Generation, *, withdrawn_in: float | None = None) -> None:
        """Use a generation from the next handshake on; `withdrawn_in` as in `Tunnel.swap`."""
        self.tunnel.swap(generation, withdrawn_in=withdrawn_in)
        if self._state_reporter is not None:
            self._state_reporter.show_identity(self.name, generation)

    def open(self, listener: Listener) -> None:
        """Accept connections from now on."""
        self.tunnel.open(listener)
        self.bound = listener.socket.getsockname()

    def log_listening(self) -> None:
        """Log the address on which connections are accepted."""
        if self.bound is not None:
            self.tunnel.log.info(f"listening for connections on {self.tunnel.name.removeprefix('tcp:')}")

    def reconfigure(self, config: ListenerConfig, policy: ReloadablePolicy | None) -> None:
        """Use another configuration from the next connection on; `use` must follow with a generation for it.

        The previous policy stays open: handshakes may wait for it.
        """
        self.config = config
        self.policy = policy
        self._watch_policy()
        self.tunnel.reconfigure(config)
        self._has_changed.set()
        if self._state_reporter is not None:
            self._state_reporter.show_listener(config)

    def show_workload_api(self, error: str | None) -> None:
        """Publish the error of the Workload API connection, "" for none; None with another identity source."""
        if self._state_reporter is not None:
            self._state_reporter.show_workload_api(self.name, error)

    def accept_challenges(self, challenges: AcmeChallenges | None) -> None:
        """Answer these ACME challenges from now on, and no others."""
        self.tunnel.accept_challenges(challenges)

    def detach(self) -> None:
        """Report no state any more: the listener was removed, and its name may belong to another one."""
        self._state_reporter = None
        self._health_checks.cancel()

    def _watch_policy(self) -> None:
        """Judge open connections again after each reload of the policy."""
        if self.policy is not None:
            self.policy.on_load = self.tunnel.judge_again

    def _show_identity_error(self, error: str) -> None:
        if self._state_reporter is not None:
            self._state_reporter.show_identity_error(self.name, error)


def open_policy(config: ListenerConfig) -> ReloadablePolicy | None:
    """Return the policy of a configuration, which is not loaded yet; None if it has none."""
    return ReloadablePolicy(config.access.policy, config.connect_timeout) if config.access.policy else None
