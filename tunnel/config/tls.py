"""The flags of the TLS protocol, and the choice that they mean.

Knows ghostunnel's names for groups of cipher suites; must not know what a certificate is. All are hidden: TLS 1.3, where
there is nothing to choose, is what both ends speak.
"""

from __future__ import annotations

from typing import Any

from tunnel.config.grammar import Arguments, Flag, option, switch
from tunnel.config.model import TlsOptions
from tunnel.config.scalars import parse_text
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

FLAGS: tuple[Flag[Any], ...] = (CIPHER_SUITES, UNSAFE_SUITES, MAX_TLS_VERSION)


def build_tls(arguments: Arguments) -> TlsOptions:
    """The protocol that a line's flags allow; raises ConfigError."""
    names = [name.strip() for name in arguments[CIPHER_SUITES].split(",")]
    for name in names:
        if name not in _SUITES:
            raise ConfigError(f"invalid cipher suite option: {name!a}, of {', '.join(_SUITES)} is wanted")
        if name.startswith("UNSAFE") and not arguments[UNSAFE_SUITES]:
            raise ConfigError(f"cipher suite option {name} is unsafe: it needs --allow-unsafe-cipher-suites")
    ciphers = ":".join(suites for name, suites in _SUITES.items() if name in names)  # their order in the flag has no effect
    return TlsOptions(ciphers, arguments[MAX_TLS_VERSION] == "TLS1.2")
