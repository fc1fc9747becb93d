"""The flags of the TLS protocol, and the choice that they mean.

Knows ghostunnel's names for groups of cipher suites; must not know what a certificate is. Those of TLS 1.2 are hidden: TLS 1.3,
where there is nothing to choose, is what both ends speak.
"""

from __future__ import annotations

from typing import Any

from tunnel.cli.parser import Arguments, Flag, option, repeated, switch
from tunnel.config.model import TlsOptions
from tunnel.config.values import parse_text
from tunnel.errors import ConfigError

_SUITES = {  # ghostunnel's groups in OpenSSL's notation
    "AES": "ECDHE+AESGCM",
    "CHACHA": "ECDHE+CHACHA20",
    "UNSAFE-AZURE": "ECDHE-RSA-AES128-SHA256",
}


def _parse_tls_version(text: str) -> str:
    if text and text.upper() not in ("TLS1.2", "TLS1.3"):
        raise ConfigError(f"invalid max TLS version: {text!a}, TLS1.2 or TLS1.3 is wanted")
    return text.upper()


CIPHER_SUITES = option(
    "cipher-suites",
    "Groups of TLS 1.2 cipher suites: AES, CHACHA.",
    parse_text,
    "AES,CHACHA",
    placeholder="LIST",
    hidden=True,
)
UNSAFE_SUITES = switch("allow-unsafe-cipher-suites", "Allow the group UNSAFE-AZURE.", hidden=True)
MAX_TLS_VERSION = option(
    "max-tls-version",
    "The newest protocol to speak, TLS1.2 or TLS1.3.",
    _parse_tls_version,
    "",
    placeholder="VERSION",
    hidden=True,
)

_MOST_PROTOCOL_BYTES = 255  # RFC 7301, 3.1
_MOST_PROTOCOLS_BYTES = 65535 - 2


def _parse_protocol(text: str) -> str:
    if not 1 <= len(text.encode("utf-8", "surrogateescape")) <= _MOST_PROTOCOL_BYTES or not text.isprintable():
        raise ConfigError(f"invalid protocol {text[:40]!a}; expected 1 to {_MOST_PROTOCOL_BYTES} bytes, such as h2 or http/1.1")
    return text


ALPN = repeated(
    "alpn",
    "Application protocol to offer as a client or choose as a server (ALPN), such as h2; repeatable, preferred first.",
    _parse_protocol,
    placeholder="NAME",
)
FLAGS: tuple[Flag[Any], ...] = (ALPN, CIPHER_SUITES, UNSAFE_SUITES, MAX_TLS_VERSION)


def build_tls(arguments: Arguments) -> TlsOptions:
    """The protocol that a line's flags allow; raises ConfigError."""
    names = [name.strip() for name in arguments[CIPHER_SUITES].split(",")]
    for name in names:
        if name not in _SUITES:
            raise ConfigError(f"invalid cipher suite option: {name!a}, of {', '.join(_SUITES)} is wanted")
        if name.startswith("UNSAFE") and not arguments[UNSAFE_SUITES]:
            raise ConfigError(f"cipher suite option {name} is unsafe: it needs --allow-unsafe-cipher-suites")
    ciphers = ":".join(suites for name, suites in _SUITES.items() if name in names)  # their order in the flag has no effect
    return TlsOptions(ciphers, arguments[MAX_TLS_VERSION] == "TLS1.2", _build_protocols(arguments))


def _build_protocols(arguments: Arguments) -> tuple[str, ...]:
    given: tuple[str, ...] = arguments[ALPN]
    protocols = tuple(dict.fromkeys(given))
    size = sum(1 + len(protocol.encode()) for protocol in protocols)
    if size > _MOST_PROTOCOLS_BYTES:
        raise ConfigError(f"--alpn: the protocols have {size} bytes together; expected at most {_MOST_PROTOCOLS_BYTES}")
    return protocols
