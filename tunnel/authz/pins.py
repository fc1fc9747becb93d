"""Pins of public keys, as text and as value.

Knows the notation `ALGORITHM:BASE64`; must not know certificates.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from tunnel.errors import ConfigError

_ALGORITHMS = ("sha256", "sha384", "sha512")


@dataclass(frozen=True, slots=True)
class SpkiPin:
    """The digest of one SubjectPublicKeyInfo in DER."""

    algorithm: str
    digest: bytes

    def __str__(self) -> str:
        return f"{self.algorithm}:{base64.b64encode(self.digest).decode()}"


def parse_pin(text: str) -> SpkiPin:
    """The pin; raises ConfigError for another algorithm, base64 that is none, or a digest of the wrong length."""
    name, colon, encoded = text.partition(":")
    algorithm = name.lower()
    if not colon or algorithm not in _ALGORITHMS:
        raise ConfigError(f"invalid SPKI pin {text!a}: ALGORITHM:BASE64 is wanted, with {', '.join(_ALGORITHMS)}")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"invalid SPKI pin {text!a}: {error}") from error
    if len(digest) != hashlib.new(algorithm).digest_size:
        wanted = hashlib.new(algorithm).digest_size
        raise ConfigError(f"invalid SPKI pin {text!a}: {len(digest)} bytes where {algorithm} has {wanted}")
    return SpkiPin(algorithm, digest)
