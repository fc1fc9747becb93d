"""What an ACME server is asked, as one value: the flags, and what the environment adds to them.

Knows the defaults, the place on disk and what can be a name; must not know the protocol ACME. Pure: files and the network
are others' work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunnel.config.model import Acme
from tunnel.errors import ConfigError

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*(?!\d+\Z){_LABEL}")
_MAX_DOMAIN = 253
_EMAIL = re.compile(r"[!-+\--~]+@[!-+\--~]+")  # printable, and no comma: that would be several
_DIRECTORY = re.compile(r"https://[!-~]+")


@dataclass(frozen=True, slots=True)
class AcmeConfig:
    """One certificate from one authority; durations in seconds."""

    domain: str
    email: str
    directory_url: str
    storage_dir: Path
    ca_trust: Path | None = None  # roots for the directory's own certificate; None for those of the library
    challenge_port: int = 443
    check_interval: float = 600.0


def complete_acme(chosen: Acme, environ: Mapping[str, str]) -> AcmeConfig:
    """The whole of it; raises ConfigError."""
    trust = environ.get("SSL_CERT_FILE", "")
    if not _EMAIL.fullmatch(chosen.email):
        raise ConfigError(f"--auto-acme-email: {chosen.email!a} is not one e-mail address")
    if not 0 < chosen.challenge_port < 65536:
        raise ConfigError(f"--auto-acme-alt-tls-alpn-port: {chosen.challenge_port} is not a port, 1 to 65535")
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
        raise ConfigError(f"--auto-acme-cert: {text!a} is a wildcard, which needs a challenge through DNS: name one host")
    if len(domain) > _MAX_DOMAIN or not _DOMAIN.fullmatch(domain):
        raise ConfigError(f"--auto-acme-cert: {text!a} is not the full name of a host, like www.example.org")
    return domain


def _parse_directory(url: str) -> str:
    if not _DIRECTORY.fullmatch(url):
        raise ConfigError(f"the directory of an ACME server must be an https:// URL, not {url!a}")
    return url


def _storage_dir(environ: Mapping[str, str]) -> Path:
    """Where data of one user belongs; the XDG Base Directory Specification has relative paths ignored."""
    data = environ.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):
        home = environ.get("HOME", "")
        if not home.startswith("/"):
            raise ConfigError("--auto-acme-cert: nowhere to keep the account and the certificate: set XDG_DATA_HOME or HOME")
        data = f"{home}/.local/share"
    return Path(data) / "tunnel" / "acme"
