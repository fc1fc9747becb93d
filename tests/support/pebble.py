"""Pebble, the test authority of Let's Encrypt, with a name server that resolves every name to this machine."""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.plain_backends import free_port
from tests.support.processes import LIMIT, Process
from tests.support.requirements import program
from tunnel.config.acme import AcmeConfig

_ATTEMPTS = 5


class Pebble:
    """A running authority; `close` ends it and its name server."""

    def __init__(self, folder: Path, *, lifetime: int = 3600, rejected_nonces: int = 0) -> None:
        """Certificates last `lifetime` seconds; of a hundred good nonces, so many are rejected, as Pebble does by habit."""
        self.folder = folder
        self.roots = folder / "directory.pem"
        self._write_certificate()
        self._environ = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0"}
        self._environ["PEBBLE_WFE_NONCEREJECT"] = str(rejected_nonces)
        self._stack = ExitStack()
        for _ in range(_ATTEMPTS):  # somebody else may have taken a port meanwhile
            self._start(lifetime)
            if self._answers():
                return
            self.close()
        raise AssertionError(f"no Pebble after {_ATTEMPTS} attempts")

    def _start(self, lifetime: int) -> None:
        self.challenge_port, self._port, dns, management, http = (free_port() for _ in range(5))
        settings = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": "",
            "certificate": str(self.roots),
            "privateKey": str(self.folder / "directory.key"),
            "httpPort": http,
            "tlsPort": self.challenge_port,
            "certificateValidityPeriod": lifetime,
        }
        config = self.folder / "pebble.json"
        config.write_text(json.dumps({"pebble": settings}))
        names = [program("pebble-challtestsrv"), "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{management}"]
        names += ["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]
        authority = [program("pebble"), "-strict", "-config", str(config), "-dnsserver", f"127.0.0.1:{dns}"]
        self._names, self.process = (self._stack.enter_context(closing(self._open(argv))) for argv in (names, authority))

    def _open(self, argv: list[str]) -> Process:
        return Process(argv, environ=self._environ, is_merged=True)

    def _answers(self) -> bool:
        """Whether it is our authority that answers, once somebody does; not when a program has ended."""
        trusting = ssl.create_default_context(cafile=str(self.roots))
        deadline = time.monotonic() + LIMIT
        while self._names.is_running and self.process.is_running and time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=LIMIT) as sock:
                    trusting.wrap_socket(sock, server_hostname="127.0.0.1").close()
                return self._names.is_running and self.process.is_running
            except ConnectionRefusedError:
                time.sleep(0.05)
            except OSError:  # of TLS too: somebody else's port
                return False
        return False

    def config(self, domain: str) -> AcmeConfig:
        """The settings for a certificate of this authority."""
        return AcmeConfig(
            domain=domain,
            email="a@example.test",
            directory_url=self.url("dir"),
            storage_dir=self.folder / "storage",
            ca_trust=self.roots,
            challenge_port=self.challenge_port,
        )

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self._port}/{path}"

    def close(self) -> None:
        self._stack.close()

    def _write_certificate(self) -> None:
        """For the directory itself, which is asked for over HTTPS only."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pebble")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem, pkcs8, bare = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.roots.write_bytes(certificate.public_bytes(pem))
        (self.folder / "directory.key").write_bytes(key.private_bytes(pem, pkcs8, bare))
