"""Pebble, Let's Encrypt's own test authority, with a name server to whom every name is this machine.

Knows the two programs of Debian's package and their settings; must not know what is asked of them.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from processes import Process
from requirements import program

from tunnel.config.acme import AcmeConfig


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Pebble:
    """A running authority; `close` ends it and its name server."""

    def __init__(self, folder: Path, *, lifetime: int = 3600, rejected_nonces: int = 0) -> None:
        """Certificates last `lifetime` seconds; of a hundred good nonces, so many are rejected, as Pebble does by habit."""
        self.folder = folder
        self.roots = folder / "directory.pem"
        self.challenge_port = free_port()
        self._port, dns, management = free_port(), free_port(), free_port()
        self._write_certificate()
        settings = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": "",
            "certificate": str(self.roots),
            "privateKey": str(folder / "directory.key"),
            "httpPort": free_port(),
            "tlsPort": self.challenge_port,
            "certificateValidityPeriod": lifetime,
        }
        config = folder / "pebble.json"
        config.write_text(json.dumps({"pebble": settings}))
        environ = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0"}
        environ["PEBBLE_WFE_NONCEREJECT"] = str(rejected_nonces)
        names = [program("pebble-challtestsrv"), "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{management}"]
        names += ["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]
        authority = [program("pebble"), "-strict", "-config", str(config), "-dnsserver", f"127.0.0.1:{dns}"]
        self._stack = ExitStack()
        try:
            for argv, word in ((names, "Starting management server"), (authority, "ACME directory available")):
                process = Process(argv, environ=environ, is_merged=True)
                self._stack.callback(process.close)
                process.wait_for(word)
        except BaseException:
            self.close()
            raise
        self.process = process

    def config(self, domain: str) -> AcmeConfig:
        """Settings for a certificate of this authority."""
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
