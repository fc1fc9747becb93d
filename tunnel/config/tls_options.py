"""The parsers of TLS options: groups of cipher suites, protocol versions, and application protocols."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tunnel.errors import ConfigError, invalid_value

SUITES: Mapping[str, str] = {  # ghostunnel's groups in OpenSSL's notation
    "AES": "ECDHE+AESGCM",
    "CHACHA": "ECDHE+CHACHA20",
    "UNSAFE-AZURE": "ECDHE-RSA-AES128-SHA256",
}
TLS_VERSIONS = ("TLS1.2", "TLS1.3")
_MAX_PROTOCOL_BYTES = 255  # RFC 7301, 3.1
_MAX_PROTOCOLS_BYTES = 65535 - 2


def parse_tls_version(text: str) -> str:
    """The maximum protocol version in capitals; "" for the newest."""
    if text and text.upper() not in TLS_VERSIONS:
        raise invalid_value("max TLS version", text, expected=" or ".join(TLS_VERSIONS))
    return text.upper()


def parse_suite(text: str) -> str:
    """The name of a group of cipher suites."""
    if text not in SUITES:
        raise invalid_value("cipher suite option", text, expected=f"one of {', '.join(SUITES)}")
    return text


def check_safe_suite(name: str, permission: str) -> None:
    """Raise ConfigError for a group that needs a permission, the name of a flag or a key."""
    if name.startswith("UNSAFE"):
        raise ConfigError(f"cipher suite option {name} is unsafe: it needs {permission}")


def join_suites(names: Iterable[str]) -> str:
    """The cipher suites of these groups in OpenSSL's notation; the order of the names has no effect."""
    chosen = set(names)
    return ":".join(suites for name, suites in SUITES.items() if name in chosen)


def parse_protocol(text: str) -> str:
    """The name of an application protocol (ALPN)."""
    if not 1 <= len(text.encode("utf-8", "surrogateescape")) <= _MAX_PROTOCOL_BYTES or not text.isprintable():
        raise invalid_value("protocol", text[:40], expected=f"1 to {_MAX_PROTOCOL_BYTES} bytes, such as h2 or http/1.1")
    return text


def join_protocols(protocols: Iterable[str]) -> tuple[str, ...]:
    """The protocols without repetitions; raises ConfigError if they do not fit in one extension."""
    distinct = tuple(dict.fromkeys(protocols))
    size = sum(1 + len(protocol.encode()) for protocol in distinct)
    if size > _MAX_PROTOCOLS_BYTES:
        raise ConfigError(f"the protocols have {size} bytes together; expected at most {_MAX_PROTOCOLS_BYTES}")
    return distinct
