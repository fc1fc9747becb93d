"""What both ends of a TLS connection agreed on: parameters and names, one object for all connections with the same."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from tunnel.tls.openssl import ffi, lib

_CACHED_NAMES = 256  # pairs of names


class TlsParameters(NamedTuple):
    """The negotiated parameters by their names in the standards: `TLSv1.3`, `TLS_AES_256_GCM_SHA384`, `x25519`."""

    version: str
    cipher: str
    group: str  # "" for a key exchange without one


_KNOWN: dict[tuple[int, Any, bytes], TlsParameters] = {}  # one object for all connections; few combinations exist


class TlsNames(NamedTuple):
    """Names that both sides agreed on: the server name (SNI) and the application protocol (ALPN); "" for none."""

    server_name: str
    alpn: str


NO_NAMES = TlsNames("", "")


@lru_cache(_CACHED_NAMES)
def share_names(server_name: bytes, alpn: bytes) -> TlsNames:
    """Return one object for all connections with these names."""
    return TlsNames(server_name.decode("latin-1"), alpn.decode("latin-1"))


def read_parameters(ssl: Any) -> TlsParameters:
    """Return the negotiated parameters of an `SSL *` whose handshake has ended."""
    name = lib.SSL_get0_group_name(ssl)
    group = b"" if name == ffi.NULL else bytes(ffi.string(name))
    key = lib.SSL_version(ssl), lib.SSL_get_current_cipher(ssl), group
    found = _KNOWN.get(key)
    if found is None:
        version, cipher = ffi.string(lib.SSL_get_version(ssl)), ffi.string(lib.SSL_CIPHER_get_name(key[1]))
        found = _KNOWN[key] = TlsParameters(version.decode(), cipher.decode(), group.decode())
    return found
