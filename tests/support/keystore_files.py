"""Certificates, keys, and keystore files written by other programs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from tests.support import cert_factory
from tunnel.errors import IdentityError, IdentityFault

VECTORS = Path(__file__).parent.parent / "vectors" / "keystores"
STORE_PASSWORD = "store-password"  # of every vector


@dataclass(frozen=True)
class Chain:
    """A leaf, the intermediate that issued it, and the root."""

    leaf: cert_factory.MadeCertificate
    intermediate: cert_factory.MadeCertificate
    root: cert_factory.MadeCertificate

    @property
    def certificates(self) -> tuple:
        return (self.leaf.certificate, self.intermediate.certificate, self.root.certificate)


@cache
def chain_of(kind: str) -> Chain:
    """A chain whose leaf has a key of a type."""
    root = cert_factory.authority(subject="root")
    intermediate = cert_factory.authority(subject="intermediate", issuer=root)
    return Chain(
        cert_factory.leaf(subject="leaf", issuer=intermediate, key=cert_factory.key_of(kind, number=7)), intermediate, root
    )


def pem_of(*made: cert_factory.MadeCertificate) -> bytes:
    """The certificates in PEM."""
    return b"".join(one.certificate.pem for one in made)


def key_pem(key, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes = b"") -> bytes:
    """The key in PEM, in PKCS#8 or the traditional format."""
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, encryption)


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    """The output of the openssl command."""
    done = subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_pair(material, chain: Chain) -> bool:
    """Whether the loaded value is this complete chain, in order, and its key."""
    return material.chain == chain.certificates and material.private_key.public_key() == chain.leaf.key.public_key()


def refusal_of(load: Callable[..., object], *arguments: str) -> tuple[IdentityFault, str]:
    """The reason and message with which loading fails."""
    with pytest.raises(IdentityError) as refused:
        load(*arguments)
    return refused.value.reason, str(refused.value)
