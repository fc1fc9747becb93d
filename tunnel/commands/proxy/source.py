"""The flags of the identity source, and the `Source` that they build: exactly one is accepted."""

from __future__ import annotations

from typing import Any

from tunnel.cli.command import Arguments, Flag, option, repeated, switch
from tunnel.commands.proxy import acme
from tunnel.config.model import (
    INTERACTIVE_TIMEOUT,
    IdentityConfig,
    KeyFiles,
    Keystore,
    NoIdentity,
    Revocation,
    Source,
    WorkloadApi,
)
from tunnel.config.values import default_of, one_of, or_none, parse_id, parse_limit, parse_text
from tunnel.errors import ConfigError
from tunnel.spiffe.endpoint import ENVIRONMENT, parse_endpoint
from tunnel.spiffe.selection import Selection

USE_API = switch("use-workload-api", f"Get the identity from the Workload API at ${ENVIRONMENT}")
API_ADDRESS = option(
    "use-workload-api-addr",
    "Get the identity from the Workload API at this address: unix:///PATH or tcp://IP:PORT",
    or_none(parse_endpoint),
    None,
    placeholder="ADDR",
    env=ENVIRONMENT,
)
API_TIMEOUT = option(
    "use-workload-api-timeout",
    "Maximum time to wait for the first identity",
    parse_limit,
    default_of(WorkloadApi, "timeout"),
    zero="no limit",
    placeholder="TIME",
)
WAIT = option(  # of commands whose caller waits for the result
    "wait",
    "Maximum time to wait for an identity",
    parse_limit,
    INTERACTIVE_TIMEOUT,
    zero="no limit",
    placeholder="TIME",
    aliases=(API_TIMEOUT.name, "timeout"),
)
SPIFFE_ID = option(
    "spiffe-id", "Use the SVID with this SPIFFE ID, and wait until it is issued", parse_id, None, placeholder="ID"
)
SPIFFE_HINT = option("spiffe-hint", "Use the SVID with this hint", parse_text, "", placeholder="HINT")
KEYSTORE = option(
    "keystore",
    "Read certificate and key from this file: PEM with both, PKCS#12, or JCEKS/JKS",
    parse_text,
    "",
    placeholder="FILE",
    env="KEYSTORE_PATH",
)
STOREPASS = option(
    "storepass",
    "Password of --keystore; set the environment variable instead, because other users can read a command line",
    parse_text,
    "",
    placeholder="PASSWORD",
    env="KEYSTORE_PASS",
    secret=True,
)
CERT = option(
    "cert", "Read the certificate chain from this PEM file, leaf first", parse_text, "", placeholder="FILE", env="CERT_PATH"
)
KEY = option("key", "Unencrypted PEM key of --cert", parse_text, "", placeholder="FILE", env="KEY_PATH")
CACERT = option(
    "cacert",
    "CA certificates to verify peers, in a PEM file; not used for peers with the Workload API",
    parse_text,
    "",
    placeholder="FILE",
    default_text="the system's",
    env="CACERT_PATH",
)
CRL = repeated(
    "crl",
    "Revocation lists to check the certificates of peers, in a PEM or DER file; repeatable",
    parse_text,
    placeholder="FILE",
    default_text="those of the Workload API",
)
_REFUSE, _ACCEPT = "refuse", "accept"
CRL_MISSING = option(
    "crl-missing",
    "Whether to refuse or accept a peer if the revocation list of an issuer is missing or expired",
    one_of(_REFUSE, _ACCEPT),
    _REFUSE if default_of(Revocation, "is_required") else _ACCEPT,
    placeholder=f"{_REFUSE}|{_ACCEPT}",
)
TIMED_RELOAD = option(
    "timed-reload",
    "Interval between reloads of certificates and policy, besides SIGHUP and SIGUSR1",
    parse_limit,
    0.0,
    zero="signals only",
    placeholder="TIME",
)
PKCS11 = tuple(
    option(
        name,
        "Not supported: use a key in a file or the Workload API",
        parse_text,
        "",
        placeholder=placeholder,
        env=env,
        hidden=True,
        secret=name == "pkcs11-pin",
    )
    for name, placeholder, env in (
        ("pkcs11-module", "FILE", "PKCS11_MODULE"),
        ("pkcs11-token-label", "LABEL", "PKCS11_TOKEN_LABEL"),
        ("pkcs11-pin", "PIN", "PKCS11_PIN"),
    )
)

SELECTION: tuple[Flag[Any], ...] = (USE_API, API_ADDRESS, SPIFFE_ID, SPIFFE_HINT)
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
    CRL,
    CRL_MISSING,
    TIMED_RELOAD,
    *PKCS11,
)


def build_source(arguments: Arguments, *, is_server: bool, is_mutual: bool) -> Source:
    """The identity source; raises ConfigError if there is none, if there are several, and for an incomplete one."""
    _check_pkcs11(arguments)
    given: list[tuple[str, Source]] = []
    if arguments[KEYSTORE]:
        given.append(("--keystore", Keystore(arguments[KEYSTORE], arguments[STOREPASS])))
    if arguments[CERT] or arguments[KEY]:
        given.append(("--cert with --key", KeyFiles(arguments[CERT], arguments[KEY])))
    if arguments[USE_API] or arguments[API_ADDRESS] is not None:
        given.append((_api_name(arguments), _build_proxy_api(arguments)))
    if is_server and arguments[acme.NAME]:
        given.append(("--auto-acme-cert", acme.build_acme(arguments)))
    if not is_server and not is_mutual:
        others = [name for name, source in given if not isinstance(source, WorkloadApi)]
        if others:
            raise ConfigError(f"--disable-authentication and {others[0]} are mutually exclusive: no certificate is presented")
        if not given:
            return NoIdentity()
    if len(given) > 1:
        names = " and ".join(name for name, _ in given)
        raise ConfigError(f"{names} are mutually exclusive; expected one identity source")
    if not given:
        raise ConfigError(
            f"no identity source; expected --use-workload-api-addr ADDR (or --use-workload-api with {ENVIRONMENT} set), "
            f"--keystore FILE, or --cert FILE with --key FILE{', or --auto-acme-cert FQDN' if is_server else ''}"
        )
    source = given[0][1]
    _check_complete(source)
    return source


def build_identity(arguments: Arguments, source: Source) -> IdentityConfig:
    """The identity source with what verifies peers."""
    return IdentityConfig(source, arguments[CACERT], Revocation(arguments[CRL], arguments[CRL_MISSING] == _REFUSE))


def build_api(arguments: Arguments, wait: Flag[float], selection: Selection) -> WorkloadApi:
    """The Workload API as the only identity source; raises ConfigError if there is no address."""
    endpoint = arguments[API_ADDRESS]
    if endpoint is None:
        raise ConfigError(f"no Workload API address; expected --use-workload-api-addr ADDR, or {ENVIRONMENT} set")
    return WorkloadApi(endpoint, arguments[wait], selection)


def build_selection(arguments: Arguments) -> Selection:
    """Which of several SVIDs is used."""
    return Selection(arguments[SPIFFE_ID], arguments[SPIFFE_HINT])


def _check_complete(source: Source) -> None:
    if isinstance(source, KeyFiles) and not source.key:
        raise ConfigError("--cert needs --key, the file with the private key")
    if isinstance(source, KeyFiles) and not source.cert:
        raise ConfigError("--key needs --cert, the file with the certificate chain")


def _check_pkcs11(arguments: Arguments) -> None:
    for flag in PKCS11:
        if arguments[flag]:
            raise ConfigError(
                f"--{flag.name} (or ${flag.env}): PKCS#11 modules are not supported: the OpenSSL of cryptography loads no "
                "provider or engine for them; use --use-workload-api with short-lived SVIDs, or a "
                "key in a file that only this user can read"
            )


def _api_name(arguments: Arguments) -> str:
    if arguments.is_given(API_ADDRESS):
        return "--use-workload-api-addr"
    return f"the Workload API (enabled by ${ENVIRONMENT})" if arguments[API_ADDRESS] else "--use-workload-api"


def _build_proxy_api(arguments: Arguments) -> WorkloadApi:
    endpoint = arguments[API_ADDRESS]
    if endpoint is None:
        raise ConfigError(
            f"workload endpoint socket address is not configured; expected --use-workload-api-addr ADDR, or {ENVIRONMENT} set"
        )
    return WorkloadApi(endpoint, arguments[API_TIMEOUT], build_selection(arguments))
