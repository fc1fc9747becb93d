"""The policy of one proxy, from its files to the rule that asks it.

Knows when it is read and what the rule says while there is none; must not know how a policy is evaluated. Reading and
compiling take time, so they are done on a thread; asking is done where there is one already.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import trio

from tunnel.authz.peer import Peer
from tunnel.authz.rules import PolicyRule
from tunnel.config.model import PolicyFiles
from tunnel.errors import ConfigError, Denial, IdentityError, PeerDenied, PolicyError, identity_errors

if TYPE_CHECKING:  # loaded only when there is a policy
    from tunnel.policy.policy import Policy


class ReloadablePolicy:
    """Keeps the last good policy in force."""

    def __init__(self, files: PolicyFiles, limit: float) -> None:
        self.rule = PolicyRule(files.query, self._ask)
        self._files = files
        self._limit = limit  # seconds that an answer may take
        self._policy: Policy | None = None
        self._is_closed = False

    async def load(self) -> None:
        """Read the files and let what they say count; raises ConfigError, and what is in force stays.

        Compiling may take half a minute: when the process ends meanwhile, the thread is left alone, and `close` stops it.
        """
        try:
            await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)
        except (PolicyError, IdentityError) as error:
            raise ConfigError(f"Invalid rego policy or query: {error}") from error

    def close(self) -> None:
        """End what evaluates or compiles; whoever is asking gets an error at once."""
        self._is_closed = True
        if self._policy is not None:
            self._policy.close()

    @property
    def pids(self) -> set[int]:
        """The processes that evaluate."""
        return self._policy.pids if self._policy is not None else set()

    def _load(self) -> None:
        with identity_errors(self._files.path):
            self._compile()

    def _compile(self) -> None:
        from tunnel.policy.bundle import load_policy
        from tunnel.policy.policy import Policy

        source = load_policy(self._files.path)
        if self._policy is None:
            self._policy = Policy(self._files.query)
        if self._is_closed:  # while the files were read
            self._policy.close()
        self._policy.load(source)

    def _ask(self, peer: Peer) -> bool:
        if self._policy is None:
            raise PeerDenied(Denial.POLICY_ERROR, "unauthorized: no policy has been read yet")
        return self._policy.admits(peer.leaf, monotonic() + self._limit)
