"""The configuration of an ACME client: the flags' values, completed from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunnel.config.model import Acme
from tunnel.config.values import default_of
from tunnel.errors import ConfigError, invalid_value

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*(?!\d+\Z){_LABEL}")
_MAX_DOMAIN = 253
_EMAIL = re.compile(r"[!-+\--~]+@[!-+\--~]+")  # printable, and no comma: that would be several
_DIRECTORY = re.compile(r"https://[!-~]+")


@dataclass(frozen=True, slots=True)
class AcmeConfig:
    """One certificate from one ACME server; durations in seconds."""

    domain: str
    email: str
    directory_url: str
    storage_dir: Path
    ca_trust: Path | None = None  # roots for the directory's own certificate; None for those of the library
    challenge_port: int = default_of(Acme, "challenge_port")
    check_interval: float = default_of(Acme, "check_interval")


def complete_acme(chosen: Acme, environ: Mapping[str, str]) -> AcmeConfig:
    """The configuration; raises ConfigError."""
    trust = environ.get("SSL_CERT_FILE", "")
    if not _EMAIL.fullmatch(chosen.email):
        raise ConfigError(f"--auto-acme-email: {invalid_value('address', chosen.email, expected='one e-mail address')}")
    if not 0 < chosen.challenge_port < 65536:
        raise ConfigError(f"--auto-acme-alt-tls-alpn-port: invalid port {chosen.challenge_port}; expected 1 to 65535")
    return AcmeConfig(
        domain=_parse_domain(chosen.domain),
        email=chosen.email,
        directory_url=_parse_directory(chosen.directory_url or LETS_ENCRYPT),
        storage_dir=_storage_dir(environ),
        ca_trust=Path(trust) if trust else None,
        challenge_port=chosen.challenge_port,
        check_interval=chosen.check_interval,
    )


def _parse_domain(text: str) -> str:
    domain = text.lower().removesuffix(".")
    if "*" in domain:
        error = invalid_value("name", text, "a wildcard needs a challenge through DNS", "the name of one host")
        raise ConfigError(f"--auto-acme-cert: {error}")
    if len(domain) > _MAX_DOMAIN or not _DOMAIN.fullmatch(domain):
        error = invalid_value("name", text, expected="the full name of a host, such as www.example.org")
        raise ConfigError(f"--auto-acme-cert: {error}")
    return domain


def _parse_directory(url: str) -> str:
    if not _DIRECTORY.fullmatch(url):
        raise ConfigError(f"--auto-acme-ca: {invalid_value('URL', url, expected='an https:// URL of an ACME directory')}")
    return url


def _storage_dir(environ: Mapping[str, str]) -> Path:
    """The user's data directory; relative paths are ignored (XDG Base Directory Specification)."""
    data = environ.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):
        home = environ.get("HOME", "")
        if not home.startswith("/"):
            raise ConfigError("--auto-acme-cert: no directory for account and certificate; expected XDG_DATA_HOME or HOME set")
        data = f"{home}/.local/share"
    return Path(data) / "tunnel" / "acme"
