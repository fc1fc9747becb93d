"""A writer of Java keystores in JKS, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_SALT = bytes(range(20))
_BY_XOR = bytes.fromhex("300e060a2b060104012a021101010500")  # AlgorithmIdentifier of Sun's key protection


def key_entry(alias: str, key: bytes, chain: Sequence[bytes], password: str, *, version: int = 2) -> bytes:
    """An entry with an encrypted private key."""
    data = _der(0x30, _BY_XOR + _der(0x04, _protect(key, password)))
    kind = _text("X.509") if version == 2 else b""
    certificates = b"".join(kind + _counted(der) for der in chain)
    return _number(1) + _text(alias) + bytes(8) + _counted(data) + _number(len(chain)) + certificates


def store(entries: Sequence[bytes], password: str, *, version: int = 2) -> bytes:
    """A keystore file with these entries."""
    body = b"\xfe\xed\xfe\xed" + _number(version) + _number(len(entries)) + b"".join(entries)
    return body + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()


def _protect(key: bytes, password: str) -> bytes:
    secret, block, out = password.encode("utf-16-be"), _SALT, b""
    for start in range(0, len(key), 20):
        block = hashlib.sha1(secret + block).digest()
        out += bytes(one ^ other for one, other in zip(key[start : start + 20], block, strict=False))
    return _SALT + out + hashlib.sha1(secret + key).digest()


def _der(tag: int, body: bytes) -> bytes:
    size = len(body)
    length = bytes((size,)) if size < 0x80 else bytes((0x81, size)) if size < 0x100 else b"\x82" + size.to_bytes(2, "big")
    return bytes((tag,)) + length + body


def _counted(data: bytes) -> bytes:
    return _number(len(data)) + data


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()
