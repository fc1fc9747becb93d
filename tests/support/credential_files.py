"""Certificate files for an identity source, and a sink that records what the source publishes."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.cert_factory import MadeCertificate, key_of, make_certificate
from tunnel.config.model import IdentityConfig, KeyFiles, Revocation
from tunnel.errors import IdentityError, IdentityFault, TunnelError
from tunnel.identity.credentials import Credentials
from tunnel.log import Log
from tunnel.proxy.file_source import FileSource

ROOT = make_certificate(is_ca=True, usage=("key_cert_sign",), key=key_of("p256", 20), subject="root")


class RecordingSink:
    """A sink that records credentials, and a log."""

    def __init__(self) -> None:
        self.used: list[tuple[int, Credentials]] = []
        self.failure: TunnelError | None = None
        self.refuses = False
        self.lines: list[str] = []
        self.log = Log(schedule=lambda _delay: None)
        self.log.write = lambda message, *_category: self.lines.append(message)  # type: ignore[method-assign]

    async def use(self, number: int, credentials: Credentials) -> None:
        if self.refuses:
            raise IdentityError(IdentityFault.BAD_CERTIFICATE, "cannot be presented")
        self.used.append((number, credentials))

    def confirm(self) -> None:
        raise AssertionError

    def withdraw(self) -> None:
        raise AssertionError

    def accept_challenges(self, challenges: object) -> None:
        raise AssertionError

    def fail(self, error: TunnelError) -> None:
        self.failure = error


class Files:
    """A chain, a key and a bundle on disk."""

    def __init__(self, directory: Path) -> None:
        self.cert, self.key, self.bundle = (directory / name for name in ("cert.pem", "key.pem", "ca.pem"))
        self.bundle.write_bytes(pem(ROOT))

    def write(self, one: MadeCertificate) -> None:
        self.cert.write_bytes(pem(one))
        self.key.write_bytes(one.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def source(self, kept: RecordingSink, *lists: Path) -> FileSource:
        identity = KeyFiles(str(self.cert), str(self.key))
        config = IdentityConfig(identity, str(self.bundle), Revocation(tuple(map(str, lists))))
        return FileSource(config, kept, kept.log, {})


def pem(one: MadeCertificate) -> bytes:
    return one.certificate.pem
