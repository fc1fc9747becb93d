"""The identity source for certificate, key and CA files, read at the start and on reload."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import trio

from tunnel.config.model import IdentityConfig, KeyFiles, Keystore, Source
from tunnel.errors import IdentityError, identity_errors
from tunnel.identity.credentials import Credentials, PkiCredentials
from tunnel.keystore.anchors import load_authorities
from tunnel.keystore.load import load_cert_and_key, load_keystore
from tunnel.keystore.material import KeyMaterial
from tunnel.keystore.revocation_lists import load_revocation
from tunnel.log import Log, escape
from tunnel.proxy.identity_source import CredentialSink, log_skipped


class FileSource:
    """Reads one set of files as a unit: if one file is invalid, all previous credentials stay in use."""

    def __init__(self, config: IdentityConfig, sink: CredentialSink, log: Log, environ: Mapping[str, str]) -> None:
        self._config = config
        self._sink = sink
        self._log = log
        self._environ = environ
        self._generation = 0

    async def run(self) -> None:
        """Publish the first credentials."""
        try:
            await self.publish(await self.read())
        except IdentityError as error:
            self._sink.fail(error)

    async def read(self) -> PkiCredentials:
        """Read the files; raises IdentityError."""
        load = partial(load_credentials, self._config, self._environ)
        return await trio.to_thread.run_sync(load, abandon_on_cancel=True)  # a file may be a pipe

    async def publish(self, credentials: Credentials) -> None:
        """Use these credentials; raises IdentityError, and the previous ones stay in use."""
        await self._sink.use(self._generation + 1, credentials)
        self.adopt(credentials)

    def adopt(self, credentials: Credentials) -> None:
        """Log credentials that are in use."""
        assert isinstance(credentials, PkiCredentials)
        self._generation += 1
        log_skipped(self._log, credentials)
        if not credentials.authorities:
            self._log.write(
                "warning: no system certificate authorities found: no peer certificate can be verified; expected --cacert FILE"
            )
        if credentials.chain:
            self._log.info(f"loaded certificate: {escape(credentials.chain[0].subject.describe())}")


def load_credentials(config: IdentityConfig, environ: Mapping[str, str]) -> PkiCredentials:
    """Read the credentials; raises only IdentityError, which names the file."""
    with identity_errors("the files cannot be used"):
        authorities = load_authorities(config.ca_bundle, environ)
        material, revocation = _load_material(config.source), load_revocation(config.revocation)
        chain, key = (material.chain, material.private_key) if material is not None else ((), None)
        return PkiCredentials(chain, key, authorities.certificates, authorities.skipped, revocation)


def _load_material(source: Source) -> KeyMaterial | None:
    """Return certificate and key, or None if none is presented."""
    if isinstance(source, KeyFiles):
        return load_cert_and_key(source.cert, source.key)
    return load_keystore(source.path, source.password) if isinstance(source, Keystore) else None
