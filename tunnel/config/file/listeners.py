"""The listeners of a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunnel.authz.rules import AnyRule
from tunnel.config.checks import check_host_name, check_local, check_outbound
from tunnel.config.file.access_lists import AccessTable, build_access, inline_table, named_table, rule_warnings
from tunnel.config.file.fields import build_fields
from tunnel.config.file.listener_keys import ACCESS_KEY, LISTENERS
from tunnel.config.file.problem import Place, suggest
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


@dataclass(slots=True)
class Shared:
    """What listeners refer to by name: identities (None for an invalid one) and access lists; and which of them are used."""

    identities: Mapping[str, IdentityConfig | None]
    access: Mapping[str, RawTable]
    defaults: Mapping[str, Any]
    default_place: Place | None = None
    has_all_identities: bool = True  # false if some may be in a file or table that cannot be read
    has_all_access: bool = True
    used_identities: set[str] = field(default_factory=set)
    used_access: set[str] = field(default_factory=set)
    has_reported_no_identity: bool = False


@dataclass(frozen=True, slots=True)
class _Draft:
    """The values of a listener's keys, with the defaults, and where they are."""

    mode: str
    values: Mapping[str, Any]
    table: RawTable
    shared: Shared

    @property
    def is_server(self) -> bool:
        return self.mode == "server"

    @property
    def is_mutual(self) -> bool:
        return not self.values.get("disable-authentication", False)

    def place(self, name: str) -> Place:
        """The place of a key, in the listener or in the defaults."""
        if name not in self.table.values and name in self.shared.defaults and self.shared.default_place is not None:
            return self.shared.default_place / name
        return self.table.place / name


def build_listener(mode: str, table: RawTable, shared: Shared) -> ListenerConfig | None:
    """The listener; None after mistakes, which are reported."""
    section = LISTENERS[mode]
    before = len(table.place.found.errors)
    read = read_table(RawTable(_without_others(mode, table), table.place), section.keys, known=(ACCESS_KEY,))
    values = {name: value for name, value in shared.defaults.items() if name in section.names() and name not in table.values}
    draft = _Draft(mode, {**values, **read}, table, shared)
    identity = _find_identity(draft)
    if identity is not None:
        _check_identity(draft, identity)
    access = _read_access(draft, identity)
    _check_plaintext(draft)
    _check_local(draft)
    tls = _build_tls(draft)
    if identity is None or access is None or len(table.place.found.errors) > before or "target" not in read:
        return None
    listener = _assemble(draft, identity, access, tls)
    _check_listener(draft, listener)
    if len(table.place.found.errors) > before:
        return None
    return _with_warnings(draft, listener)


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


def _assemble(draft: _Draft, identity: IdentityConfig, access: Access, tls: TlsOptions) -> ListenerConfig:
    values = draft.values
    listener = ListenerConfig(
        name=values.get("name", str(values["listen"])),
        is_server=draft.is_server,
        listen=values["listen"],
        target=values["target"],
        identity=identity,
        access=access,
        plaintext=_build_plaintext(values),
    )
    listener = build_fields(listener, LISTENERS[draft.mode].keys, values)
    return replace(listener, tls=replace(listener.tls, ciphers=tls.ciphers, protocols=tls.protocols))


def _find_identity(draft: _Draft) -> IdentityConfig | None:
    shared = draft.shared
    name = draft.values.get("identity")
    if name is None:
        return None if "identity" in draft.table.values else _only_identity(draft)
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


def _only_identity(draft: _Draft) -> IdentityConfig | None:
    shared = draft.shared
    names = list(shared.identities)
    if len(names) == 1:
        shared.used_identities.add(names[0])
        return shared.identities[names[0]]
    if not names and not draft.is_server and not draft.is_mutual:
        return IdentityConfig(NoIdentity())
    if names:
        draft.table.place.refuse(f"missing key identity; expected one of {', '.join(names)}")
    elif shared.has_all_identities and not shared.has_reported_no_identity:
        shared.has_reported_no_identity = True
        draft.table.place.refuse("no identity source; expected a table [identity.NAME]")
    return None


def _check_identity(draft: _Draft, identity: IdentityConfig) -> None:
    """Report an identity that does not fit the mode of the listener."""
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


def _read_access(draft: _Draft, identity: IdentityConfig | None) -> Access | None:
    """The access of the listener; rules are read even if the identity is invalid."""
    is_spiffe = identity is None or isinstance(identity.source, WorkloadApi)
    if ACCESS_KEY not in draft.table.values:
        return _absent_access(draft, is_spiffe=is_spiffe)
    place = draft.table.place / ACCESS_KEY
    if draft.is_server and not draft.is_mutual:
        place.refuse("access and disable-authentication are mutually exclusive: no certificate is requested")
        return None
    table = _access_table(draft, draft.table.values[ACCESS_KEY], place)
    if table is None:
        return None
    access = build_access(table, is_server=draft.is_server, is_spiffe=is_spiffe, is_mutual=draft.is_mutual)
    if access is not None and not draft.is_server and not access.rules and access.policy is None:
        return None
    return access


def _absent_access(draft: _Draft, *, is_spiffe: bool) -> Access | None:
    if draft.is_server and not draft.is_mutual:
        return Access((), is_mutual=False)
    if not draft.is_server and not is_spiffe:
        return Access((AnyRule("host-name"),), is_mutual=draft.is_mutual)
    peers = "clients" if draft.is_server else "the server"
    draft.table.place.refuse(f"missing key access: no access rule for {peers}; expected the name of an access list, or rules")
    return None


def _access_table(draft: _Draft, value: object, place: Place) -> AccessTable | None:
    shared = draft.shared
    if not isinstance(value, str):
        return inline_table(value, place)
    if value in shared.access:
        shared.used_access.add(value)
        return named_table(shared.access[value])
    if shared.has_all_access:
        text, _ = suggest(value, shared.access)
        place.refuse(f"unknown access list {quote(value[:80])}{text or '; expected a table [access.NAME], or a list of rules'}")
    return None


def _check_plaintext(draft: _Draft) -> None:
    if draft.is_server and not draft.values.get("plaintext", False):
        for name in ("plaintext-sources", "plaintext-silence"):
            if name in draft.table.values:
                draft.place(name).refuse('needs plaintext = "permit"')


def _build_plaintext(values: Mapping[str, Any]) -> Plaintext | None:
    if not values.get("plaintext", False):
        return None
    given = {"sources": values.get("plaintext-sources"), "silence": values.get("plaintext-silence")}
    return replace(Plaintext(), **{name: value for name, value in given.items() if value is not None})


def _check_local(draft: _Draft) -> None:
    """Report plain connections to or from other machines without a permission."""
    name, permission = ("target", "unsafe-target") if draft.is_server else ("listen", "unsafe-listen")
    if name in draft.values and not draft.values.get(permission, False):
        problem = check_local(draft.values[name], f"{permission} = true")
        if problem:
            draft.place(name).refuse(problem)


def _build_tls(draft: _Draft) -> TlsOptions:
    suites = draft.values.get("cipher-suites")
    tls = TlsOptions()
    if suites is not None:
        if not draft.values.get("allow-unsafe-cipher-suites", False):
            for name in suites:
                _report(draft, "cipher-suites", lambda name=name: check_safe_suite(name, "allow-unsafe-cipher-suites = true"))
        tls = replace(tls, ciphers=join_suites(suites))
    protocols = _report(draft, "alpn", lambda: join_protocols(draft.values.get("alpn", ())))
    return replace(tls, protocols=protocols or ())


def _report(draft: _Draft, name: str, call: Any) -> Any:
    try:
        return call()
    except ConfigError as error:
        return draft.place(name).refuse(str(error))


def _check_listener(draft: _Draft, listener: ListenerConfig) -> None:
    problems = (check_host_name(listener, "override-server-name"), check_outbound(listener, "proxy"))
    for problem in filter(None, problems):
        draft.place("target").refuse(problem)


def _with_warnings(draft: _Draft, listener: ListenerConfig) -> ListenerConfig:
    if not isinstance(listener.identity.source, WorkloadApi):
        return listener
    warnings = rule_warnings(listener.access)
    for warning in warnings:
        (draft.table.place / ACCESS_KEY).warn(warning)
    return replace(listener, warnings=tuple(warnings))
