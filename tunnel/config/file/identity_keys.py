"""The keys of an identity in a configuration file."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from tunnel.config.acme import parse_acme_directory, parse_acme_domain, parse_acme_email
from tunnel.config.file.kinds import checked_text, duration, file_name, integer, listing, optional, switch, text, words
from tunnel.config.file.schema import Key, Section
from tunnel.config.model import Acme, IdentityConfig, KeyFiles, Keystore, WorkloadApi
from tunnel.config.values import default_of, parse_id, parse_limit, parse_positive_duration, parse_text
from tunnel.errors import HIDDEN
from tunnel.spiffe.endpoint import parse_endpoint


def _of(kind: type, name: str) -> Callable[[IdentityConfig], Any]:
    take = attrgetter(name)
    return lambda identity: take(identity.source) if isinstance(identity.source, kind) else None


def _of_api(name: str) -> Callable[[IdentityConfig], Any]:
    return _of(WorkloadApi, name)


def _of_acme(name: str) -> Callable[[IdentityConfig], Any]:
    return _of(Acme, name)


def _password_of(identity: IdentityConfig) -> str | None:
    source = identity.source
    return source.password if isinstance(source, Keystore) and not source.password_file else None


_TEXT = text("a string", parse_text)
_FILE = file_name()
_MISSING_LIST = words({"refuse": True, "accept": False})
IDENTITY: Final = Section(
    "identity.NAME",
    "An identity source, and what peers are verified with",
    IdentityConfig,
    (
        Key(
            "workload-api",
            optional(text('an address such as "unix:///run/spire/agent.sock" or "tcp://127.0.0.1:8081"', parse_endpoint)),
            "Get the identity and the trust bundles from the SPIFFE Workload API at this address",
            take=_of_api("endpoint"),
        ),
        Key(
            "spiffe-id",
            optional(text("a SPIFFE ID", parse_id)),
            "With `workload-api`: use the SVID with this SPIFFE ID",
            take=_of_api("selection.spiffe_id"),
        ),
        Key("hint", optional(_TEXT), "With `workload-api`: use the SVID with this hint", take=_of_api("selection.hint")),
        Key(
            "timeout",
            optional(duration(parse_limit)),
            "With `workload-api`: maximum time to wait for the first identity; 0 for no limit",
            default=default_of(WorkloadApi, "timeout"),
            take=_of_api("timeout"),
        ),
        Key("cert", optional(_FILE), "Certificate chain in PEM, leaf first; needs `key`", take=_of(KeyFiles, "cert")),
        Key("key", optional(_FILE), "Unencrypted PEM key of `cert`", take=_of(KeyFiles, "key")),
        Key(
            "keystore",
            optional(_FILE),
            "Certificate chain and key in one file: PEM, PKCS#12, JCEKS or JKS",
            take=_of(Keystore, "path"),
        ),
        Key(
            "storepass-file",
            optional(_FILE),
            "File with the password of `keystore`, read at every load",
            take=_of(Keystore, "password_file"),
        ),
        Key(
            "storepass",
            optional(_TEXT),
            "Password of `keystore`; prefer `storepass-file`",
            take=_password_of,
            mask=lambda _: HIDDEN,
        ),
        Key(
            "acme",
            optional(checked_text("a host name", parse_acme_domain)),
            "Get a certificate for this name from an ACME server",
            take=_of_acme("domain"),
        ),
        Key(
            "acme-email",
            optional(checked_text("an e-mail address", parse_acme_email)),
            "E-mail address to register with the ACME server",
            take=_of_acme("email"),
        ),
        Key(
            "acme-agree-to-tos",
            switch(),
            "Agree to the ACME server's terms of service; must be true",
            take=lambda identity: isinstance(identity.source, Acme) or None,
        ),
        Key(
            "acme-ca",
            optional(checked_text("an https:// URL", parse_acme_directory)),
            "Directory URL of the ACME server; default Let's Encrypt",
            take=_of_acme("directory_url"),
        ),
        Key(
            "acme-renew-check-interval",
            optional(duration(parse_positive_duration)),
            "Interval between checks whether the certificate needs renewal",
            default=default_of(Acme, "check_interval"),
            take=_of_acme("check_interval"),
        ),
        Key(
            "acme-alt-tls-alpn-port",
            optional(integer(65535, lowest=1)),
            "Port on which the first challenge is answered, if port 443 is forwarded to it",
            default=default_of(Acme, "challenge_port"),
            take=_of_acme("challenge_port"),
        ),
        Key(
            "ca", _FILE, "CA certificates in PEM to verify peers, except with `workload-api`; default the system's", "ca_bundle"
        ),
        Key("crl", listing(_FILE), "Certificate revocation lists in PEM or DER", "revocation.files"),
        Key(
            "crl-missing",
            _MISSING_LIST,
            "Refuse or accept a peer if the list of an issuer is missing or expired, where there are lists",
            "revocation.is_required",
        ),
    ),
)
