"""Credentials from an ACME server: the first before we listen, the next in time.

Knows when to look and what a failure leaves in use; must not know the protocol or the challenge. Whatever blocks does so on a
thread, which is left alone when the process ends. A reload reads the authorities again: the certificate takes care of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import trio

from tunnel.acme.renewal import CertificateRenewer
from tunnel.errors import IdentityError, identity_errors
from tunnel.identity.credentials import PkiCredentials
from tunnel.keystore.anchors import load_authorities
from tunnel.keystore.material import KeyMaterial
from tunnel.log import Log, escape
from tunnel.proxy.identity_source import CredentialSink, log_left_out
from tunnel.tls.acme_challenge import AcmeChallenges

OpenKeeper = Callable[[AcmeChallenges, Callable[[str], None]], CertificateRenewer]


class AcmeSource:
    """Keeps one certificate."""

    def __init__(
        self, open_renewer: OpenKeeper, ca_bundle: str, sink: CredentialSink, log: Log, environ: Mapping[str, str]
    ) -> None:
        self._challenges = AcmeChallenges()
        self._keeper = open_renewer(self._challenges, self._say)
        self._ca_bundle = ca_bundle
        self._sink = sink
        self._log = log
        self._environ = environ
        self._held: KeyMaterial | None = None
        self._generation = 0
        self._turn = trio.Lock()  # a reload of the old one must not come after the new one

    async def run(self) -> None:
        """Publish a certificate, then every newer one, until cancelled."""
        self._token = trio.lowlevel.current_trio_token()
        self._sink.expect_probes(self._challenges)
        try:
            first = await trio.to_thread.run_sync(self._keeper.obtain, abandon_on_cancel=True)
            async with self._turn:
                await self._use(first)
        except IdentityError as error:
            self._sink.fail(error)
            return
        while True:
            await trio.sleep(self._keeper.seconds_to_next_look())
            await self._renew()

    async def reload(self) -> None:
        """Read the authorities again; raises IdentityError, and what is in use stays."""
        async with self._turn:
            if self._held is not None:
                await self._use(self._held)

    async def _renew(self) -> None:
        try:
            with identity_errors("the renewal failed"):  # no thread or no memory, perhaps
                await self._use_fresh()
        except IdentityError as error:
            delay = self._keeper.seconds_to_next_look()
            self._log.write(f"ACME: {escape(str(error))}: the certificate in use stays, the next attempt is in {delay:g}s")

    async def _use_fresh(self) -> None:
        fresh = await trio.to_thread.run_sync(self._keeper.renew_if_due, abandon_on_cancel=True)
        if fresh is not None:
            async with self._turn:
                await self._use(fresh)

    async def _use(self, material: KeyMaterial) -> None:
        credentials = await trio.to_thread.run_sync(self._complete, material)
        self._sink.use(self._generation + 1, credentials)
        self._generation += 1
        log_left_out(self._log, credentials)
        self._held = material

    def _complete(self, material: KeyMaterial) -> PkiCredentials:
        with identity_errors("the CA bundle cannot be used"):
            authorities = load_authorities(self._ca_bundle, self._environ)
        return PkiCredentials(material.chain, material.private_key, authorities.certificates, authorities.left_out)

    def _say(self, line: str) -> None:
        """From the keeper's thread; when trio is over, so is the interest."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._log.write, escape(line))
