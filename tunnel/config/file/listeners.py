"""The listeners of a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunnel.config.checks import check_host_name, check_local, check_outbound
from tunnel.config.file.draft import ListenerDraft, Shared
from tunnel.config.file.fields import build_fields
from tunnel.config.file.listener_access import read_access, warn_about_access
from tunnel.config.file.listener_keys import ACCESS_KEY, LISTENERS
from tunnel.config.file.problem import suggest
from tunnel.config.file.tables import Raw, RawTable, read_table
from tunnel.config.model import (
    Access,
    Acme,
    IdentityConfig,
    ListenerConfig,
    NoIdentity,
    Plaintext,
    TlsOptions,
    WorkloadApi,
)
from tunnel.config.tls_options import check_safe_suite, join_protocols, join_suites
from tunnel.errors import ConfigError, quote
from tunnel.lazy_dataclass import replace

_DEFAULT_IDENTITY = "default"  # of listeners that name none
PLAINTEXT_PERMITTED = "plain TCP clients are accepted without authentication"  # the listener logs more about it
_UNSAFE_SUITES = "allow-unsafe-cipher-suites"


def build_listener(mode: str, table: RawTable, shared: Shared) -> ListenerConfig | None:
    """The listener; None after mistakes, which are reported."""
    section = LISTENERS[mode]
    before = len(table.place.found.errors)
    read = read_table(RawTable(_without_others(mode, table), table.place, table.meant), section.keys, known=(ACCESS_KEY,))
    values = {name: value for name, value in shared.defaults.items() if name in section.names() and name not in table.values}
    draft = ListenerDraft(mode, {**values, **read}, table, shared)
    identity = _find_identity(draft)
    if identity is not None and not _fits_listener(draft, identity):
        identity = None
    access = read_access(draft, identity)
    _check_plaintext(draft)
    _check_local(draft)
    tls = _build_tls(draft)
    if identity is None or access is None or len(table.place.found.errors) > before or "target" not in read:
        return None
    listener = _assemble(draft, identity, access, tls)
    _check_listener(draft, listener)
    if len(table.place.found.errors) > before:
        return None
    _warn(draft, listener)
    return listener


def _without_others(mode: str, table: RawTable) -> Raw:
    """The keys that the schema reads; those of the other mode are reported."""
    own = {}
    for name, value in table.values.items():
        others = [other for other, section in LISTENERS.items() if other != mode and name in section.names()]
        if others and name not in LISTENERS[mode].names():
            (table.place / name).refuse(f"for [[{others[0]}]] only, not for [[{mode}]]")
        elif name != ACCESS_KEY:
            own[name] = value
    return own


def _assemble(draft: ListenerDraft, identity: IdentityConfig, access: Access, tls: TlsOptions) -> ListenerConfig:
    values = draft.values
    listener = ListenerConfig(
        name=values.get("name", str(values["listen"])),
        is_server=draft.is_server,
        listen=values["listen"],
        targets=values["target"],
        identity=identity,
        access=access,
        plaintext=_build_plaintext(values),
    )
    listener = build_fields(listener, LISTENERS[draft.mode].keys, values)
    return replace(listener, tls=replace(listener.tls, ciphers=tls.ciphers, protocols=tls.protocols))


def _find_identity(draft: ListenerDraft) -> IdentityConfig | None:
    shared = draft.shared
    name = draft.values.get("identity")
    if name is None:
        return None if draft.table.has("identity") else _only_identity(draft)
    if name in shared.identities:
        shared.used_identities.add(name)
        return shared.identities[name]
    if shared.has_all_identities:
        text, _ = suggest(name, shared.identities)
        expected = (
            f"; expected one of {', '.join(shared.identities)}" if shared.identities else "; expected a table [identity.NAME]"
        )
        draft.place("identity").refuse(f"unknown identity {quote(name)}{text or expected}")
    return None


def _only_identity(draft: ListenerDraft) -> IdentityConfig | None:
    shared = draft.shared
    names = list(shared.identities)
    if len(names) == 1 or _DEFAULT_IDENTITY in names:
        name = names[0] if len(names) == 1 else _DEFAULT_IDENTITY
        shared.used_identities.add(name)
        return shared.identities[name]
    if not names and not draft.is_server and not draft.is_mutual:
        return IdentityConfig(NoIdentity())
    if names:
        draft.table.place.refuse(f"missing key identity; expected one of {', '.join(names)}")
    elif shared.has_all_identities and not shared.has_reported_no_identity:
        shared.has_reported_no_identity = True
        draft.table.place.refuse("no identity source; expected a table [identity.NAME]")
    return None


def _fits_listener(draft: ListenerDraft, identity: IdentityConfig) -> bool:
    """Whether the identity fits the mode of the listener; if not, this is reported."""
    source, place = identity.source, draft.place("identity")
    if isinstance(source, NoIdentity) and (draft.is_server or draft.is_mutual):
        instead = "" if draft.is_server else ", or disable-authentication = true"
        place.refuse(
            f"identity {identity.name} has no certificate to present; expected workload-api, cert or keystore{instead}"
        )
    elif isinstance(source, Acme) and not draft.is_server:
        place.refuse("a certificate from an ACME server is for servers only; expected workload-api, cert or keystore")
    elif not draft.is_server and not draft.is_mutual and not isinstance(source, WorkloadApi | NoIdentity):
        place.refuse("disable-authentication and a certificate are mutually exclusive: no certificate is presented")
    else:
        return True
    return False


def _check_plaintext(draft: ListenerDraft) -> None:
    if draft.is_server and not draft.values.get("plaintext", False) and not draft.table.has("plaintext"):
        for name in ("plaintext-sources", "plaintext-silence"):
            if name in draft.table.values:
                draft.place(name).refuse('needs plaintext = "permit"')


def _build_plaintext(values: Mapping[str, Any]) -> Plaintext | None:
    if not values.get("plaintext", False):
        return None
    given = {"sources": values.get("plaintext-sources"), "silence": values.get("plaintext-silence")}
    return replace(Plaintext(), **{name: value for name, value in given.items() if value is not None})


def _check_local(draft: ListenerDraft) -> None:
    """Report plain connections to or from other machines without a permission."""
    name, permission = ("target", "unsafe-target") if draft.is_server else ("listen", "unsafe-listen")
    addresses = draft.values.get(name, ())
    addresses = addresses if isinstance(addresses, tuple) else (addresses,)
    if not draft.values.get(permission, False) and permission not in draft.table.meant:
        problems = [check_local(address, f"{permission} = true") for address in addresses]
        for problem in filter(None, problems):
            draft.place(name).refuse(problem)


def _build_tls(draft: ListenerDraft) -> TlsOptions:
    suites = draft.values.get("cipher-suites")
    tls = TlsOptions()
    if suites is not None:
        if not draft.values.get(_UNSAFE_SUITES, False) and _UNSAFE_SUITES not in draft.table.meant:
            for name in suites:
                _report(draft, "cipher-suites", lambda name=name: check_safe_suite(name, f"{_UNSAFE_SUITES} = true"))
        tls = replace(tls, ciphers=join_suites(suites))
    protocols = _report(draft, "alpn", lambda: join_protocols(draft.values.get("alpn", ())))
    return replace(tls, protocols=protocols or ())


def _report(draft: ListenerDraft, name: str, call: Any) -> Any:
    try:
        return call()
    except ConfigError as error:
        return draft.place(name).refuse(str(error))


def _check_listener(draft: ListenerDraft, listener: ListenerConfig) -> None:
    problems = (check_host_name(listener, "override-server-name"), check_outbound(listener, "proxy"))
    for problem in filter(None, problems):
        draft.place("target").refuse(problem)


def _warn(draft: ListenerDraft, listener: ListenerConfig) -> None:
    if listener.plaintext is not None:
        draft.place("plaintext").warn(PLAINTEXT_PERMITTED)
    warn_about_access(draft, listener.access, is_spiffe=isinstance(listener.identity.source, WorkloadApi))
