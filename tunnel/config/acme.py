"""The configuration of an ACME client: the flags' values, completed from the environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tunnel.config.model import Acme
from tunnel.config.values import default_of
from tunnel.errors import ConfigError, invalid_value
from tunnel.lazy_dataclass import dataclass

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
    email = _parse_flag("--auto-acme-email", parse_acme_email, chosen.email)
    if not 0 < chosen.challenge_port < 65536:
        raise ConfigError(f"--auto-acme-alt-tls-alpn-port: invalid port {chosen.challenge_port}; expected 1 to 65535")
    return AcmeConfig(
        domain=_parse_flag("--auto-acme-cert", parse_acme_domain, chosen.domain),
        email=email,
        directory_url=_parse_flag("--auto-acme-ca", parse_acme_directory, chosen.directory_url or LETS_ENCRYPT),
        storage_dir=_storage_dir(environ),
        ca_trust=Path(trust) if trust else None,
        challenge_port=chosen.challenge_port,
        check_interval=chosen.check_interval,
    )


def parse_acme_email(text: str) -> str:
    """The address to register with an ACME server; raises ConfigError."""
    if not _EMAIL.fullmatch(text):
        raise invalid_value("address", text, expected="one e-mail address")
    return text


def parse_acme_domain(text: str) -> str:
    """The name of one host, in lower case; raises ConfigError."""
    domain = text.lower().removesuffix(".")
    if "*" in domain:
        raise invalid_value("name", text, "a wildcard needs a challenge through DNS", "the name of one host")
    if len(domain) > _MAX_DOMAIN or not _DOMAIN.fullmatch(domain):
        raise invalid_value("name", text, expected="the full name of a host, such as www.example.org")
    return domain


def parse_acme_directory(url: str) -> str:
    """The URL of an ACME directory; raises ConfigError."""
    if not _DIRECTORY.fullmatch(url):
        raise invalid_value("URL", url, expected="an https:// URL of an ACME directory")
    return url


def _parse_flag(flag: str, parse: Callable[[str], str], text: str) -> str:
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from error


def _storage_dir(environ: Mapping[str, str]) -> Path:
    """The user's data directory; relative paths are ignored (XDG Base Directory Specification)."""
    data = environ.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):
        home = environ.get("HOME", "")
        if not home.startswith("/"):
            raise ConfigError("--auto-acme-cert: no directory for account and certificate; expected XDG_DATA_HOME or HOME set")
        data = f"{home}/.local/share"
    return Path(data) / "tunnel" / "acme"
