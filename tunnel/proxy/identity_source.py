"""The interfaces between an identity source and the proxy that uses its credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tunnel.config.model import IdentityConfig
from tunnel.errors import TunnelError
from tunnel.identity.credentials import Credentials, PkiCredentials
from tunnel.log import Log, escape
from tunnel.status.counters import WorkloadApiState

if TYPE_CHECKING:  # loaded only when a certificate comes from an ACME server
    from tunnel.tls.acme_challenge import AcmeChallenges


class CredentialSink(Protocol):
    """Receives the credentials and the state of an identity source."""

    async def use(self, number: int, credentials: Credentials) -> None:
        """Use credentials from the next handshake on; raises IdentityError, and the previous credentials stay in use."""

    def confirm(self) -> None:
        """The credentials in use are still valid, also after `withdraw`."""

    def withdraw(self) -> None:
        """The issuer no longer grants the identity in use."""

    def show_workload_api(self, state: WorkloadApiState) -> None:
        """Report the state of the Workload API connection."""

    def accept_challenges(self, challenges: AcmeChallenges) -> None:
        """Answer ACME challenges on the listener from now on."""

    def fail(self, error: TunnelError) -> None:
        """End the proxy with this error: there will be no credentials."""


class IdentitySource(Protocol):
    """A source of credentials."""

    async def run(self) -> None:
        """Publish the first credentials, then every change, until cancelled."""

    async def read(self) -> Credentials | None:
        """Read files again; None if there is nothing to read. Raises IdentityError."""

    async def publish(self, credentials: Credentials) -> None:
        """Use what `read` has returned; raises IdentityError, and the previous credentials stay in use."""

    def adopt(self, credentials: Credentials) -> None:
        """What `read` has returned is in use as the next generation, without `publish`."""


async def reload_source(source: IdentitySource) -> None:
    """Read the files of a source again and use them; raises IdentityError, and the previous credentials stay in use."""
    credentials = await source.read()
    if credentials is not None:
        await source.publish(credentials)


def name_identity(log: Log, identity: IdentityConfig) -> Log:
    """Return the log whose lines have the name of an identity, if it has one."""
    return log.with_fields(f"identity={identity.name}") if identity.name else log


def log_skipped(log: Log, credentials: PkiCredentials) -> None:
    """Log each certificate authority that was left out because it is invalid."""
    for failure in credentials.skipped:
        log.write(f"warning: {escape(failure)}")
