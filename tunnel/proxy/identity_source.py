"""Where credentials come from, as the supervisor sees it.

Knows what is asked of a source of credentials and what it may say in turn; must not know any one source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tunnel.errors import TunnelError
from tunnel.identity.credentials import Credentials, PkiCredentials
from tunnel.log import Log, escape
from tunnel.status.counters import WorkloadApiState

if TYPE_CHECKING:  # loaded only when a certificate comes from an ACME server
    from tunnel.tls.acme_challenge import AcmeChallenges


class CredentialSink(Protocol):
    """Who uses what a feed brings."""

    def use(self, number: int, credentials: Credentials) -> None:
        """Use these from the next handshake on; raises IdentityError when they cannot be, and what is in use stays."""

    def confirm(self) -> None:
        """What is in use is ours still."""

    def withdraw(self) -> None:
        """What is in use has been taken away from us."""

    def show_workload_api(self, state: WorkloadApiState) -> None:
        """The Workload API that the credentials come from is in this state."""

    def expect_probes(self, challenges: AcmeChallenges) -> None:
        """From now on an ACME server may look in where we listen."""

    def fail(self, error: TunnelError) -> None:
        """There will be no credentials: the process ends with this reason."""


class IdentitySource(Protocol):
    """A source of credentials."""

    async def run(self) -> None:
        """Publish the first credentials, then every change, until cancelled."""

    async def reload(self) -> None:
        """Read again what changes without a word; raises IdentityError, and what is in use stays."""


def log_left_out(log: Log, credentials: PkiCredentials) -> None:
    """Name each authority of a file that cannot be used, since nothing that it has signed verifies."""
    for failure in credentials.left_out:
        log.write(f"warning: {escape(failure)}")
