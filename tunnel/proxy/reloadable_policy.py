"""The OPA policy of one proxy, loaded from files and reloaded on request."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import trio

from tunnel.authz.peer import Peer
from tunnel.authz.rules import PolicyRule
from tunnel.config.model import PolicyFiles
from tunnel.errors import ConfigError, Denial, IdentityError, PeerDenied, PolicyError, identity_errors

if TYPE_CHECKING:  # loaded only when there is a policy
    from tunnel.policy.bundle import PolicySource
    from tunnel.policy.policy import Policy


class ReloadablePolicy:
    """Loads a policy on a thread and evaluates it for `rule`; after a failed load the previous policy stays in use."""

    def __init__(self, files: PolicyFiles, limit: float) -> None:
        self.rule = PolicyRule(files.query, self._ask)
        self._files = files
        self.limit = limit  # seconds for one evaluation
        self._policy: Policy | None = None
        self._source: PolicySource | None = None  # of the policy in use
        self._is_closed = False
        self.on_load: Callable[[], object] | None = None  # called when another policy is in use

    async def load(self) -> None:
        """Read and compile the files; raises ConfigError, and the previous policy stays in use.

        Compiling may take half a minute: if the process ends meanwhile, the thread is abandoned, and `close` stops it.
        """
        try:
            await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)
        except (PolicyError, IdentityError) as error:
            raise ConfigError(f"Invalid rego policy or query: {error}") from error
        if self.on_load is not None:
            self.on_load()

    async def is_up_to_date(self) -> bool:
        """Whether the files still contain the policy in use; raises ConfigError if they cannot be read."""
        try:
            return await trio.to_thread.run_sync(self._read, abandon_on_cancel=True) == self._source
        except (PolicyError, IdentityError) as error:
            raise ConfigError(f"Invalid rego policy or query: {error}") from error

    def close(self) -> None:
        """Stop evaluating and compiling; pending evaluations fail at once."""
        self._is_closed = True
        if self._policy is not None:
            self._policy.close()

    @property
    def pids(self) -> set[int]:
        """The process IDs of the evaluators."""
        return self._policy.pids if self._policy is not None else set()

    def _read(self) -> PolicySource:
        from tunnel.policy.bundle import load_policy

        with identity_errors(self._files.path):
            return load_policy(self._files.path)

    def _load(self) -> None:
        with identity_errors(self._files.path):
            self._compile()

    def _compile(self) -> None:
        from tunnel.policy.policy import Policy

        source = self._read()
        if self._policy is None:
            self._policy = Policy(self._files.query)
        if self._is_closed:  # while the files were read
            self._policy.close()
        self._policy.load(source)
        self._source = source

    def admits(self, leaf: bytes) -> bool:
        """Whether the policy admits the peer with this certificate in DER, which may block; raises PeerDenied if it fails."""
        if self._policy is None:
            raise PeerDenied(Denial.POLICY_ERROR, "unauthorized: no policy is loaded yet")
        return self._policy.admits(leaf, monotonic() + self.limit)

    def _ask(self, peer: Peer) -> bool:
        return self.admits(peer.leaf)
