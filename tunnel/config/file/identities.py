"""The identity sources of a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunnel.config.file.fields import build_fields
from tunnel.config.file.identity_keys import IDENTITY
from tunnel.config.file.problem import Place
from tunnel.config.file.tables import RawTable, read_table
from tunnel.config.model import Acme, IdentityConfig, KeyFiles, Keystore, NoIdentity, Source, WorkloadApi
from tunnel.config.values import default_of
from tunnel.errors import ConfigError, describe_os_error
from tunnel.spiffe.selection import Selection

_HEADS: Mapping[str, tuple[str, ...]] = {  # the keys that need another one
    "workload-api": ("spiffe-id", "hint", "timeout"),
    "cert": ("key",),
    "keystore": ("storepass", "storepass-file"),
    "acme": ("acme-email", "acme-agree-to-tos", "acme-ca", "acme-renew-check-interval", "acme-alt-tls-alpn-port"),
}
_MAX_PASSWORD_BYTES = 4096


def build_identity(name: str, table: RawTable) -> IdentityConfig | None:
    """The identity; None after mistakes, which are reported."""
    place = table.place
    before = len(place.found.errors)
    values = read_table(table, IDENTITY.keys)
    heads = [head for head in _HEADS if table.has(head)]
    if len(heads) > 1:
        place.refuse(f"{' and '.join(heads)} are mutually exclusive; expected one identity source")
    else:
        _check_companions(table, heads)
    if len(place.found.errors) > before:
        return None
    source = _build_source(values, place)
    if source is None:
        return None
    if isinstance(source, WorkloadApi) and "ca" in values:
        (place / "ca").warn("not used for peers: the Workload API provides the bundles")
    if "crl-missing" in values and "crl" not in values and not isinstance(source, WorkloadApi):
        (place / "crl-missing").warn("has no effect without crl")
    return build_fields(IdentityConfig(source, name=name), IDENTITY.keys, values)


def _check_companions(table: RawTable, heads: list[str]) -> None:
    for head, others in _HEADS.items():
        for other in others:
            if other in table.values and head not in heads:
                (table.place / other).refuse(f"needs {head}")
    for head, needed in (("cert", "key"), ("acme", "acme-email"), ("acme", "acme-agree-to-tos")):
        if head in table.values and not table.has(needed):
            (table.place / head).refuse(f"needs {needed}")
    if "storepass" in table.values and "storepass-file" in table.values:
        (table.place / "storepass").refuse("storepass and storepass-file are mutually exclusive; expected one password")
    if table.values.get("acme-agree-to-tos") is False:
        (table.place / "acme-agree-to-tos").refuse("no agreement to the ACME server's terms of service; expected true")


def _build_source(values: Mapping[str, Any], place: Place) -> Source | None:
    if "workload-api" in values:
        timeout = values.get("timeout", default_of(WorkloadApi, "timeout"))
        return WorkloadApi(values["workload-api"], timeout, Selection(values.get("spiffe-id"), values.get("hint", "")))
    if "cert" in values:
        return KeyFiles(values["cert"], values["key"])
    if "keystore" in values:
        password = _read_password(values, place)
        return None if password is None else Keystore(values["keystore"], password, values.get("storepass-file", ""))
    if "acme" in values:
        return Acme(
            values["acme"],
            values["acme-email"],
            values.get("acme-ca", ""),
            values.get("acme-renew-check-interval", default_of(Acme, "check_interval")),
            values.get("acme-alt-tls-alpn-port", default_of(Acme, "challenge_port")),
        )
    return NoIdentity()


def _read_password(values: Mapping[str, Any], place: Place) -> str | None:
    if "storepass-file" not in values:
        return str(values.get("storepass", ""))
    try:
        return _read_password_file(values["storepass-file"])
    except ConfigError as error:
        (place / "storepass-file").refuse(str(error))
        return None


def _read_password_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            blob = file.read(_MAX_PASSWORD_BYTES + 1)
        if len(blob) > _MAX_PASSWORD_BYTES:
            raise ConfigError(f"the file is too large; expected at most {_MAX_PASSWORD_BYTES} bytes")
        return blob.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(f"cannot read the file: {describe_os_error(error)}") from error
    except UnicodeDecodeError:
        raise ConfigError("the password is not UTF-8") from None
