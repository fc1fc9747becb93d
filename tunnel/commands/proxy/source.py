"""The flags that say where our certificate comes from, and the source that they mean.

Knows which of them go together; must not open a file or ask anyone. Exactly one source is wanted: of two, neither is the
better guess.
"""

from __future__ import annotations

from typing import Any

from tunnel.cli.parser import Arguments, Flag, option, switch
from tunnel.config.model import Acme, KeyFiles, Keystore, NoIdentity, Source, WorkloadApi
from tunnel.config.values import or_none, parse_id, parse_limit, parse_positive_duration, parse_text, parse_uint32
from tunnel.errors import ConfigError
from tunnel.spiffe.endpoint import ENVIRONMENT, parse_endpoint
from tunnel.spiffe.selection import Selection

USE_API = switch("use-workload-api", f"Take the identity from the Workload API at ${ENVIRONMENT}.")
API_ADDRESS = option(
    "use-workload-api-addr",
    "Take the identity from the Workload API at this address: unix:///PATH or tcp://IP:PORT.",
    or_none(parse_endpoint),
    None,
    placeholder="ADDR",
    env=ENVIRONMENT,
)
API_TIMEOUT = option(
    "use-workload-api-timeout",
    "How long to wait for the first identity; default 10m, 0 waits for ever.",
    parse_limit,
    600.0,
    placeholder="TIME",
)
WAIT = option(  # the same for a tool, which has somebody waiting
    "wait",
    "How long to wait for an identity; default 15s, 0 waits for ever.",
    parse_limit,
    15.0,
    placeholder="TIME",
    aliases=(API_TIMEOUT.name, "timeout"),
)
SPIFFE_ID = option(
    "spiffe-id", "Of several identities, be this one, and wait until it is offered.", parse_id, None, placeholder="ID"
)
SPIFFE_HINT = option("spiffe-hint", "Of several identities, be the one with this hint.", parse_text, "", placeholder="HINT")
KEYSTORE = option(
    "keystore",
    "Take certificate and key from this file: PEM with both, PKCS#12, or JCEKS/JKS.",
    parse_text,
    "",
    placeholder="FILE",
    env="KEYSTORE_PATH",
)
STOREPASS = option(
    "storepass",
    "The password of --keystore; better given in the environment, where other users cannot read it.",
    parse_text,
    "",
    placeholder="PASSWORD",
    env="KEYSTORE_PASS",
    secret=True,
)
CERT = option(
    "cert", "Take the certificate chain from this PEM file, leaf first.", parse_text, "", placeholder="FILE", env="CERT_PATH"
)
KEY = option("key", "The unencrypted PEM key that goes with --cert.", parse_text, "", placeholder="FILE", env="KEY_PATH")
CACERT = option(
    "cacert",
    "Verify peers by the authorities in this PEM file; default the system's. Not used for peers with the Workload API.",
    parse_text,
    "",
    placeholder="FILE",
    env="CACERT_PATH",
)
TIMED_RELOAD = option(
    "timed-reload",
    "Read certificates and policy again at this interval; default 0, on SIGHUP and SIGUSR1 only.",
    parse_limit,
    0.0,
    placeholder="TIME",
)
PKCS11 = tuple(
    option(
        name,
        "Not offered: use a key in a file or the Workload API.",
        parse_text,
        "",
        placeholder=word,
        env=env,
        hidden=True,
        secret=name == "pkcs11-pin",
    )
    for name, word, env in (
        ("pkcs11-module", "FILE", "PKCS11_MODULE"),
        ("pkcs11-token-label", "LABEL", "PKCS11_TOKEN_LABEL"),
        ("pkcs11-pin", "PIN", "PKCS11_PIN"),
    )
)
ACME_NAME = option(
    "auto-acme-cert", "Obtain a certificate for this name from an ACME server.", parse_text, "", placeholder="FQDN"
)
ACME_EMAIL = option("auto-acme-email", "The address to register with the ACME server.", parse_text, "", placeholder="EMAIL")
ACME_AGREE = switch("auto-acme-agree-to-tos", "Agree to the ACME server's terms of service.")
ACME_CA = option("auto-acme-ca", "The ACME server's directory; default Let's Encrypt.", parse_text, "", placeholder="URL")
ACME_TEST_CA = option(
    "auto-acme-testca", "Another directory, for trying: used in the place of --auto-acme-ca.", parse_text, "", placeholder="URL"
)
ACME_INTERVAL = option(
    "auto-acme-renew-check-interval",
    "How often to look whether to renew.",
    parse_positive_duration,
    600.0,
    placeholder="TIME",
    hidden=True,
)
ACME_PORT = option(
    "auto-acme-alt-tls-alpn-port",
    "Where the first challenge is answered, when something forwards port 443 there.",
    parse_uint32,
    443,
    placeholder="PORT",
    hidden=True,
)

FLAGS: tuple[Flag[Any], ...] = (
    USE_API,
    API_ADDRESS,
    API_TIMEOUT,
    SPIFFE_ID,
    SPIFFE_HINT,
    KEYSTORE,
    STOREPASS,
    CERT,
    KEY,
    CACERT,
    TIMED_RELOAD,
    *PKCS11,
)
ACME: tuple[Flag[Any], ...] = (
    ACME_NAME,
    ACME_EMAIL,
    ACME_AGREE,
    ACME_CA,
    ACME_TEST_CA,
    ACME_INTERVAL,
    ACME_PORT,
)


def build_source(arguments: Arguments, *, is_server: bool, is_mutual: bool) -> Source:
    """The one source that the flags name; raises ConfigError for none, for several and for half of one."""
    _check_pkcs11(arguments)
    offered: list[tuple[str, Source]] = []
    if arguments[KEYSTORE]:
        offered.append(("--keystore", Keystore(arguments[KEYSTORE], arguments[STOREPASS])))
    if arguments[CERT] or arguments[KEY]:
        offered.append(("--cert with --key", KeyFiles(arguments[CERT], arguments[KEY])))
    if arguments[USE_API] or arguments[API_ADDRESS] is not None:
        offered.append((_name_of_api(arguments), _build_api(arguments)))
    if is_server and arguments[ACME_NAME]:
        offered.append(("--auto-acme-cert", _build_acme(arguments)))
    if not is_server and not is_mutual:
        others = [name for name, source in offered if not isinstance(source, WorkloadApi)]
        if others:
            raise ConfigError(f"--disable-authentication shows no certificate: it and {others[0]} are mutually exclusive")
        if not offered:
            return NoIdentity()
    if len(offered) > 1:
        raise ConfigError(f"{' and '.join(name for name, _ in offered)} are mutually exclusive: give one source of an identity")
    if not offered:
        raise ConfigError(
            f"no source of an identity: give --use-workload-api-addr ADDR (or --use-workload-api with {ENVIRONMENT} set), "
            f"--keystore FILE, or --cert FILE with --key FILE{', or --auto-acme-cert FQDN' if is_server else ''}"
        )
    source = offered[0][1]
    _check_halves(source)
    return source


def check_acme(arguments: Arguments) -> None:
    """ACME wants to know whom it deals with; raises ConfigError."""
    if arguments[ACME_NAME] and not arguments[ACME_EMAIL]:
        raise ConfigError("--auto-acme-cert needs --auto-acme-email: the address to register with the ACME server")
    if arguments[ACME_NAME] and not arguments[ACME_AGREE]:
        raise ConfigError("--auto-acme-cert needs --auto-acme-agree-to-tos: the ACME server's terms must be agreed to")


def _check_halves(source: Source) -> None:
    if isinstance(source, KeyFiles) and not source.key:
        raise ConfigError("--cert needs --key: the file with its private key")
    if isinstance(source, KeyFiles) and not source.cert:
        raise ConfigError("--key needs --cert: the file with its certificate chain")


def _check_pkcs11(arguments: Arguments) -> None:
    for flag in PKCS11:
        if arguments[flag]:
            raise ConfigError(
                f"--{flag.name} (or ${flag.env}): keys behind a PKCS#11 module are not offered, since the OpenSSL that comes "
                "with pyOpenSSL loads no provider or engine for one; use --use-workload-api with short-lived SVIDs, or a key "
                "in a file readable by this user alone"
            )


def _name_of_api(arguments: Arguments) -> str:
    if arguments.is_given(API_ADDRESS):
        return "--use-workload-api-addr"
    return f"the Workload API (switched on by ${ENVIRONMENT})" if arguments[API_ADDRESS] else "--use-workload-api"


def _build_api(arguments: Arguments) -> WorkloadApi:
    endpoint = arguments[API_ADDRESS]
    if endpoint is None:
        raise ConfigError(
            f"workload endpoint socket address is not configured: give --use-workload-api-addr or set {ENVIRONMENT}"
        )
    return WorkloadApi(endpoint, arguments[API_TIMEOUT], Selection(arguments[SPIFFE_ID], arguments[SPIFFE_HINT]))


def _build_acme(arguments: Arguments) -> Acme:
    return Acme(
        arguments[ACME_NAME],
        arguments[ACME_EMAIL],
        arguments[ACME_TEST_CA] or arguments[ACME_CA],
        arguments[ACME_INTERVAL],
        arguments[ACME_PORT],
    )
