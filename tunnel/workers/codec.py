"""Encodes messages between the parent and a worker; certificates are sent in DER, and private keys arrive as PKCS#8.

The parent trusts a worker less than a worker the parent: a message of a worker may contain values of a few known types only.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any

from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.spiffe.x509 import PrivateKey

Decode = Callable[[bytes], object]


def encode(message: object) -> bytes:
    """Encode one message."""
    buffer = io.BytesIO()
    _Encoder(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    return buffer.getvalue()


def decode_trusted(data: bytes) -> object:
    """Decode a message of the parent."""
    return pickle.loads(data)  # noqa: S301  # of our own parent process


def decode_limited(types: Collection[type]) -> Decode:
    """Return a function that decodes messages with values of these types; it raises UnpicklingError for any other."""
    known = {(one.__module__, one.__qualname__): one for one in types}

    def decode(data: bytes) -> object:
        return _Decoder(io.BytesIO(data), known).load()

    return decode


class _Encoder(pickle.Pickler):
    """Replaces what cannot be pickled, and what is parsed, by its encoding."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, Certificate):
            return parse_certificate, (value.der,)
        if isinstance(value, PrivateKey):
            return bytes, (_encode_key(value),)  # a worker only presents it
        if isinstance(value, Enum):  # some versions of the interpreter use getattr for it
            return type(value), (value.value,)
        return NotImplemented


class _Decoder(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, known: dict[tuple[str, str], type]) -> None:
        super().__init__(file)
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        found = self._known.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"unexpected type {module}.{name}")
        return found


def _encode_key(key: PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # 1.7 MiB in a worker

    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
