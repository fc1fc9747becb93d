"""The flags of the TLS protocol, and the `TlsOptions` that they build.

The flags of TLS 1.2 are hidden: TLS 1.3, which has no choice of cipher suites here, is the normal case.
"""

from __future__ import annotations

from typing import Any

from tunnel.cli.command import Arguments, Flag, option, repeated, switch
from tunnel.config.model import TlsOptions
from tunnel.config.values import parse_text
from tunnel.errors import ConfigError, invalid_value

_SUITES = {  # ghostunnel's groups in OpenSSL's notation
    "AES": "ECDHE+AESGCM",
    "CHACHA": "ECDHE+CHACHA20",
    "UNSAFE-AZURE": "ECDHE-RSA-AES128-SHA256",
}
_VERSIONS = ("TLS1.2", "TLS1.3")
_MAX_PROTOCOL_BYTES = 255  # RFC 7301, 3.1
_MAX_PROTOCOLS_BYTES = 65535 - 2


def _parse_tls_version(text: str) -> str:
    if text and text.upper() not in _VERSIONS:
        raise invalid_value("max TLS version", text, expected=" or ".join(_VERSIONS))
    return text.upper()


def _parse_protocol(text: str) -> str:
    if not 1 <= len(text.encode("utf-8", "surrogateescape")) <= _MAX_PROTOCOL_BYTES or not text.isprintable():
        raise invalid_value("protocol", text[:40], expected=f"1 to {_MAX_PROTOCOL_BYTES} bytes, such as h2 or http/1.1")
    return text


CIPHER_SUITES = option(
    "cipher-suites",
    "Groups of TLS 1.2 cipher suites: AES, CHACHA",
    parse_text,
    "AES,CHACHA",  # is TlsOptions.ciphers
    placeholder="LIST",
    hidden=True,
)
UNSAFE_SUITES = switch("allow-unsafe-cipher-suites", "Allow the group UNSAFE-AZURE", hidden=True)
MAX_TLS_VERSION = option(
    "max-tls-version",
    "Maximum protocol version, TLS1.2 or TLS1.3",
    _parse_tls_version,
    "",
    placeholder="VERSION",
    hidden=True,
)
ALPN = repeated(
    "alpn",
    "Application protocol to offer as a client or select as a server (ALPN), such as h2; repeatable, preferred first",
    _parse_protocol,
    placeholder="NAME",
)
FLAGS: tuple[Flag[Any], ...] = (ALPN, CIPHER_SUITES, UNSAFE_SUITES, MAX_TLS_VERSION)


def build_tls(arguments: Arguments) -> TlsOptions:
    """The TLS options; raises ConfigError."""
    names = [name.strip() for name in arguments[CIPHER_SUITES].split(",")]
    for name in names:
        if name not in _SUITES:
            raise invalid_value("cipher suite option", name, expected=f"one of {', '.join(_SUITES)}")
        if name.startswith("UNSAFE") and not arguments[UNSAFE_SUITES]:
            raise ConfigError(f"cipher suite option {name} is unsafe: it needs --{UNSAFE_SUITES.name}")
    ciphers = ":".join(suites for name, suites in _SUITES.items() if name in names)  # their order in the flag has no effect
    return TlsOptions(ciphers, arguments[MAX_TLS_VERSION] == "TLS1.2", _build_protocols(arguments))


def _build_protocols(arguments: Arguments) -> tuple[str, ...]:
    given: tuple[str, ...] = arguments[ALPN]
    protocols = tuple(dict.fromkeys(given))
    size = sum(1 + len(protocol.encode()) for protocol in protocols)
    if size > _MAX_PROTOCOLS_BYTES:
        raise ConfigError(f"--alpn: the protocols have {size} bytes together; expected at most {_MAX_PROTOCOLS_BYTES}")
    return protocols
