"""SPKI pins: digests of public keys, written as `ALGORITHM:BASE64`."""

from __future__ import annotations

import base64
import binascii

from tunnel.errors import invalid_value, quote
from tunnel.lazy_dataclass import dataclass

_ALGORITHMS = ("sha256", "sha384", "sha512")
_EXPECTED = f"ALGORITHM:BASE64 with one of {', '.join(_ALGORITHMS)}"


@dataclass(frozen=True, slots=True)
class SpkiPin:
    """The digest of a SubjectPublicKeyInfo in DER."""

    algorithm: str
    digest: bytes

    def __str__(self) -> str:
        return f"{self.algorithm}:{base64.b64encode(self.digest).decode()}"

    def is_match(self, key_info: bytes) -> bool:
        """Whether this is the digest of a SubjectPublicKeyInfo in DER."""
        import hashlib  # they load the OpenSSL of the system: 0.5 MiB
        import hmac

        return hmac.compare_digest(hashlib.new(self.algorithm, key_info).digest(), self.digest)


def parse_pin(text: str) -> SpkiPin:
    """Parse a pin; raises ConfigError for an unknown algorithm, invalid base64, or a digest of the wrong length."""
    import hashlib

    name, colon, encoded = text.partition(":")
    algorithm = name.lower()
    if not colon or algorithm not in _ALGORITHMS:
        problem = f"unknown algorithm {quote(name)}" if colon else "missing algorithm"
        raise invalid_value("SPKI pin", text, problem, _EXPECTED)
    try:
        digest = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_value("SPKI pin", text, str(error).lower(), _EXPECTED) from error
    size = hashlib.new(algorithm).digest_size
    if len(digest) != size:
        raise invalid_value("SPKI pin", text, f"digest of {len(digest)} bytes", f"{size} for {algorithm}")
    return SpkiPin(algorithm, digest)
