"""The access of a listener: a named list, an inline one, or what a listener without one has."""

from __future__ import annotations

from tunnel.authz.rules import AnyRule
from tunnel.config.file.access_lists import AccessTable, build_access, inline_table, list_problems, named_table
from tunnel.config.file.draft import ListenerDraft
from tunnel.config.file.listener_keys import ACCESS_KEY
from tunnel.config.file.problem import Place, suggest
from tunnel.config.model import Access, IdentityConfig, WorkloadApi
from tunnel.errors import quote
from tunnel.lazy_dataclass import replace

_DOMAINS = "trust-domains"


def read_access(draft: ListenerDraft, identity: IdentityConfig | None) -> Access | None:
    """The access; None after mistakes, which are reported. Rules are read even if the identity is invalid."""
    is_spiffe = identity is None or isinstance(identity.source, WorkloadApi)
    if ACCESS_KEY in draft.table.values:
        access = _read_list(draft, is_spiffe=is_spiffe)
    elif (identity is None and not draft.is_server) or draft.table.meant & {ACCESS_KEY, "disable-authentication"}:
        return None  # the identity decides whether it is needed, or it is misspelled
    else:
        access = _absent_access(draft, is_spiffe=is_spiffe)
    domains = draft.values.get(_DOMAINS)
    if access is None or domains is None:
        return access
    if is_spiffe and draft.is_peer_verified:
        return replace(access, trust_domains=domains)
    if _DOMAINS in draft.table.values:
        needed = "access" if is_spiffe else "the Workload API: other certificates prove no trust domain"
        draft.place(_DOMAINS).refuse(f"{_DOMAINS} needs {needed}")
    return access


def warn_about_access(draft: ListenerDraft, access: Access, *, is_spiffe: bool) -> None:
    """Report the warnings about the access."""
    value = draft.table.values.get(ACCESS_KEY)
    table = None if value is None else _find_table(draft, value, draft.table.place / ACCESS_KEY)
    if table is not None:
        for place, problem in list_problems(table, access, is_spiffe=is_spiffe):
            place.warn(problem)


def _read_list(draft: ListenerDraft, *, is_spiffe: bool) -> Access | None:
    place = draft.table.place / ACCESS_KEY
    if not draft.is_peer_verified:
        place.refuse("access and disable-authentication are mutually exclusive: no certificate is requested")
        return None
    table = _find_table(draft, draft.table.values[ACCESS_KEY], place)
    if table is None:
        return None
    return build_access(table, is_server=draft.is_server, is_spiffe=is_spiffe, is_mutual=draft.is_mutual)


def _absent_access(draft: ListenerDraft, *, is_spiffe: bool) -> Access | None:
    if not draft.is_peer_verified:
        return Access((), is_mutual=False)
    if not draft.is_server and not is_spiffe:
        return Access((AnyRule("host-name"),), is_mutual=draft.is_mutual)
    peers = "clients" if draft.is_server else "the server"
    draft.table.place.refuse(f"missing key access: no access rule for {peers}; expected the name of an access list, or rules")
    return None


def _find_table(draft: ListenerDraft, value: object, place: Place) -> AccessTable | None:
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
