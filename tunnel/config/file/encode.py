"""Configuration files written from a `ProcessConfig`, with all values or with those that are not the default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from tunnel.authz.rules import AnyRule
from tunnel.config.access import encode_rules
from tunnel.config.file.identity_keys import IDENTITY
from tunnel.config.file.listener_keys import ACCESS_KEY, LISTENERS
from tunnel.config.file.process_keys import HEALTH, LOG, METRICS, MONITOR, PROCESS, STATUS, TRACES
from tunnel.config.file.schema import Section
from tunnel.config.file.writer import TomlValue, encode_key, encode_table
from tunnel.config.model import Access, IdentityConfig, ListenerConfig, Monitor, ProcessConfig, WorkloadApi
from tunnel.lazy_dataclass import dataclass

_UNNAMED = "default"
_FIRST = ("name", "listen", "target")  # of the keys of a listener
Table = dict[str, TomlValue]


@dataclass(frozen=True, slots=True)
class Style:
    """Which values are written: also the defaults, and without secrets."""

    is_complete: bool = False
    is_masked: bool = True


def encode_config(config: ProcessConfig, style: Style) -> str:
    """The file; raises UnicodeEncodeError for a value that is not Unicode."""
    names = _name_identities(config.listeners)
    tables = [
        ("", _encode_section(PROCESS, config, style)),
        ("[log]", _encode_section(LOG, config.log, style)),
        *_encode_monitors(config.monitors, style),
        *([("[traces]", _encode_section(TRACES, config.traces, style))] if config.traces is not None else []),
        *((f"[identity.{encode_key(name)}]", _encode_section(IDENTITY, identity, style)) for identity, name in names.items()),
        *((f"[[{listener.mode}]]", _encode_listener(listener, names, style)) for listener in config.listeners),
    ]
    needed = ("[[", "[identity", "[status", "[health", "[monitor")  # even without keys
    return "\n".join(encode_table(header, table) for header, table in tables if table or header.startswith(needed))


def _name_identities(listeners: Iterable[ListenerConfig]) -> dict[IdentityConfig, str]:
    """A unique name for each identity."""
    names: dict[IdentityConfig, str] = {}
    for listener in listeners:
        if listener.identity not in names:
            base = name = listener.identity.name or _UNNAMED
            number = 1
            while name in names.values():
                number += 1
                name = f"{base}-{number}"
            names[listener.identity] = name
    return names


def _encode_section(section: Section, value: Any, style: Style) -> Table:
    table: Table = {}
    for key in section.keys:
        current = key.value_of(value)
        if current is None or (not style.is_complete and not key.is_required and current == section.default_of(key)):
            continue
        encoded = key.kind.encode(current)
        if encoded is not None:
            table[key.name] = _mask(encoded, key.mask) if style.is_masked and key.mask else encoded
    return table


def _mask(value: TomlValue, mask: Callable[[str], str]) -> TomlValue:
    """A text, or each of a list of texts, without its secret."""
    if isinstance(value, list):
        return [_mask(inner, mask) for inner in value]
    return mask(value) if isinstance(value, str) else value


def _encode_monitors(monitors: Iterable[Monitor], style: Style) -> list[tuple[str, Table]]:
    tables: list[tuple[str, Table]] = []
    for index, monitor in enumerate(monitors):
        prefix = ""
        if index or monitor.listeners:
            prefix = "monitor."
            tables.append(("[[monitor]]", _encode_section(MONITOR, monitor, style)))
        if monitor.status is not None:
            tables.append((f"[{prefix}status]", _encode_section(STATUS, monitor.status, style)))
        if monitor.health is not None:
            tables.append((f"[{prefix}health]", _encode_section(HEALTH, monitor.health, style)))
        if style.is_complete or monitor.metrics.has_target() or monitor.metrics.ca_bundle:
            tables.append((f"[{prefix}metrics]", _encode_section(METRICS, monitor.metrics, style)))
    return tables


def _encode_listener(listener: ListenerConfig, names: Mapping[IdentityConfig, str], style: Style) -> Table:
    encoded = _encode_section(LISTENERS[listener.mode], listener, style)
    table = {name: encoded.pop(name) for name in _FIRST if name in encoded}
    if len(names) > 1 or style.is_complete:
        table["identity"] = names[listener.identity]
    access = _encode_access(listener.access, is_implied=_is_access_implied(listener))
    if access is not None:
        table[ACCESS_KEY] = access
    return {**table, **encoded}


def _is_access_implied(listener: ListenerConfig) -> bool:
    """Whether the access is what a listener has that names none."""
    if listener.is_server:
        return not listener.access.is_mutual
    return not isinstance(listener.identity.source, WorkloadApi) and listener.access.rules == (AnyRule("host-name"),)


def _encode_access(access: Access, *, is_implied: bool) -> TomlValue | None:
    rules = cast(TomlValue, encode_rules(access.rules))
    if is_implied and access.policy is None:
        return None
    if access.pins:
        return {"spki-pins": [str(pin) for pin in access.pins]}
    if access.policy is None:
        return rules
    return {**({"rules": rules} if access.rules else {}), "policy": access.policy.path, "query": access.policy.query}
