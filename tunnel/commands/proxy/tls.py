"""The flags of the TLS protocol, and the `TlsOptions` that they build.

The flags of TLS 1.2 are hidden: TLS 1.3, which has no choice of cipher suites here, is the normal case.
"""

from __future__ import annotations

from typing import Any

from tunnel.cli.command import Arguments, Flag, option, repeated, switch
from tunnel.config.model import TlsOptions
from tunnel.config.tls_options import (
    check_safe_suite,
    join_protocols,
    join_suites,
    parse_protocol,
    parse_suite,
    parse_tls_version,
)
from tunnel.config.values import parse_text
from tunnel.errors import ConfigError

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
    parse_tls_version,
    "",
    placeholder="VERSION",
    hidden=True,
)
ALPN = repeated(
    "alpn",
    "Application protocol to offer as a client or select as a server (ALPN), such as h2; repeatable, preferred first",
    parse_protocol,
    placeholder="NAME",
)
FLAGS: tuple[Flag[Any], ...] = (ALPN, CIPHER_SUITES, UNSAFE_SUITES, MAX_TLS_VERSION)


def build_tls(arguments: Arguments) -> TlsOptions:
    """The TLS options; raises ConfigError."""
    names = [name.strip() for name in arguments[CIPHER_SUITES].split(",")]
    for name in names:
        parse_suite(name)
        if not arguments[UNSAFE_SUITES]:
            check_safe_suite(name, f"--{UNSAFE_SUITES.name}")
    return TlsOptions(join_suites(names), arguments[MAX_TLS_VERSION] == "TLS1.2", _build_protocols(arguments))


def _build_protocols(arguments: Arguments) -> tuple[str, ...]:
    given: tuple[str, ...] = arguments[ALPN]
    try:
        return join_protocols(given)
    except ConfigError as error:
        raise ConfigError(f"--{ALPN.name}: {error}") from error
