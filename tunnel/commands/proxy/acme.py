"""The flags of a certificate from an ACME server, and the `Acme` that they build."""

from __future__ import annotations

from typing import Any

from tunnel.cli.command import Arguments, Flag, option, switch
from tunnel.config.model import Acme
from tunnel.config.values import default_of, parse_positive_duration, parse_text, parse_uint32
from tunnel.errors import ConfigError

NAME = option("auto-acme-cert", "Get a certificate for this name from an ACME server", parse_text, "", placeholder="FQDN")
EMAIL = option("auto-acme-email", "E-mail address to register with the ACME server", parse_text, "", placeholder="EMAIL")
AGREE = switch("auto-acme-agree-to-tos", "Agree to the ACME server's terms of service")
CA = option(
    "auto-acme-ca",
    "Directory URL of the ACME server",
    parse_text,
    "",
    placeholder="URL",
    default_text="Let's Encrypt",
)
TEST_CA = option("auto-acme-testca", "Directory URL for tests; overrides --auto-acme-ca", parse_text, "", placeholder="URL")
CHECK_INTERVAL = option(
    "auto-acme-renew-check-interval",
    "Interval between checks whether the certificate needs renewal",
    parse_positive_duration,
    default_of(Acme, "check_interval"),
    placeholder="TIME",
    hidden=True,
)
PORT = option(
    "auto-acme-alt-tls-alpn-port",
    "Port on which the first challenge is answered, if port 443 is forwarded to it",
    parse_uint32,
    default_of(Acme, "challenge_port"),
    placeholder="PORT",
    hidden=True,
)

FLAGS: tuple[Flag[Any], ...] = (NAME, EMAIL, AGREE, CA, TEST_CA, CHECK_INTERVAL, PORT)


def build_acme(arguments: Arguments) -> Acme:
    """The ACME identity source."""
    return Acme(
        arguments[NAME],
        arguments[EMAIL],
        arguments[TEST_CA] or arguments[CA],
        arguments[CHECK_INTERVAL],
        arguments[PORT],
    )


def check_acme(arguments: Arguments) -> None:
    """Raise ConfigError if ACME is used without an e-mail address or without agreement to the terms of service."""
    if arguments[NAME] and not arguments[EMAIL]:
        raise ConfigError("--auto-acme-cert needs --auto-acme-email, the address to register with the ACME server")
    if arguments[NAME] and not arguments[AGREE]:
        raise ConfigError(
            "--auto-acme-cert needs --auto-acme-agree-to-tos, the agreement to the ACME server's terms of service"
        )
