"""The identity source for certificates from an ACME server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import trio

from tunnel.acme.renewal import CertificateRenewer
from tunnel.config.model import IdentityConfig
from tunnel.errors import IdentityError, identity_errors
from tunnel.identity.credentials import Credentials, PkiCredentials
from tunnel.keystore.anchors import load_authorities
from tunnel.keystore.material import KeyMaterial
from tunnel.keystore.revocation_lists import load_revocation
from tunnel.log import Log, escape
from tunnel.proxy.identity_source import CredentialSink, log_skipped
from tunnel.tls.acme_challenge import AcmeChallenges

OpenRenewer = Callable[[AcmeChallenges, Callable[[str], None]], CertificateRenewer]


class AcmeSource:
    """Obtains one certificate and renews it in time; blocking work runs on a thread, which may outlive the process's end."""

    def __init__(
        self, open_renewer: OpenRenewer, config: IdentityConfig, sink: CredentialSink, log: Log, environ: Mapping[str, str]
    ) -> None:
        self._challenges = AcmeChallenges()
        self._renewer = open_renewer(self._challenges, self._log_from_thread)
        self._config = config
        self._sink = sink
        self._log = log
        self._environ = environ
        self._material: KeyMaterial | None = None
        self._generation = 0
        self._publishing = trio.Lock()

    async def run(self) -> None:
        """Publish a certificate, then each renewed one, until cancelled."""
        self._token = trio.lowlevel.current_trio_token()
        self._sink.accept_challenges(self._challenges)
        try:
            first = await trio.to_thread.run_sync(self._renewer.obtain, abandon_on_cancel=True)
            await self._publish(first, await self._complete(first))
        except IdentityError as error:
            self._sink.fail(error)
            return
        while True:
            await trio.sleep(self._renewer.seconds_to_next_check())
            await self._renew()

    async def read(self) -> PkiCredentials | None:
        """Read the CA bundle and the revocation lists again; None before the first certificate. Raises IdentityError."""
        return await self._complete(self._material) if self._material is not None else None

    async def publish(self, credentials: Credentials) -> None:
        """Use these credentials, unless the certificate was renewed meanwhile; raises IdentityError."""
        assert isinstance(credentials, PkiCredentials)
        async with self._publishing:
            if self._material is not None and credentials.chain == self._material.chain:
                await self._publish(self._material, credentials)

    def adopt(self, credentials: Credentials) -> None:
        """Log credentials that are in use."""
        assert isinstance(credentials, PkiCredentials)
        self._generation += 1
        log_skipped(self._log, credentials)

    async def _renew(self) -> None:
        try:
            with identity_errors("the renewal failed"):  # for example, no thread or no memory
                await self._use_fresh()
        except IdentityError as error:
            delay = self._renewer.seconds_to_next_check()
            self._log.write(f"ACME: {escape(str(error))}; keeping the current certificate retry_in={delay:g}s")

    async def _use_fresh(self) -> None:
        fresh = await trio.to_thread.run_sync(self._renewer.renew_if_due, abandon_on_cancel=True)
        if fresh is not None:
            completed = await self._complete(fresh)
            async with self._publishing:
                await self._publish(fresh, completed)

    async def _publish(self, material: KeyMaterial, credentials: PkiCredentials) -> None:
        await self._sink.use(self._generation + 1, credentials)
        self.adopt(credentials)
        self._material = material

    async def _complete(self, material: KeyMaterial) -> PkiCredentials:
        """Add the authorities of peers and the revocation lists; raises IdentityError."""
        return await trio.to_thread.run_sync(self._load_authorities, material)

    def _load_authorities(self, material: KeyMaterial) -> PkiCredentials:
        with identity_errors("the CA bundle and the revocation lists cannot be used"):
            authorities = load_authorities(self._config.ca_bundle, self._environ)
            revocation = load_revocation(self._config.revocation)
        return PkiCredentials(material.chain, material.private_key, authorities.certificates, authorities.skipped, revocation)

    def _log_from_thread(self, line: str) -> None:
        """Write a line from the renewer's thread; dropped after the end of trio."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._log.write, escape(line))
