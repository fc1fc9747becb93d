"""The `ProcessConfig` of configuration files; every mistake in them is reported at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tunnel.config.checks import check_health_ports
from tunnel.config.file.access_lists import build_access, named_table
from tunnel.config.file.document import Document, read_documents
from tunnel.config.file.draft import Shared
from tunnel.config.file.fields import build_fields
from tunnel.config.file.identities import build_identity
from tunnel.config.file.listener_keys import DEFAULTS
from tunnel.config.file.listeners import PLAINTEXT_PERMITTED, build_listener
from tunnel.config.file.problem import Place, Problem, Problems, suggest
from tunnel.config.file.process_keys import HEALTH, LOG, METRICS, MONITOR, PROCESS, STATUS, TRACES
from tunnel.config.file.tables import RawTable, Tables, merge_documents, read_table
from tunnel.config.model import HealthPort, ListenerConfig, LogConfig, Metrics, Monitor, ProcessConfig, Status, Traces
from tunnel.errors import quote
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.net.address import TcpAddress

_MONITOR_TABLES = ("status", "health", "metrics")


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration, the warnings about it, and the files that it was read from."""

    config: ProcessConfig
    warnings: tuple[Problem, ...]
    files: tuple[str, ...]


def load_config(paths: Sequence[str | os.PathLike[str]]) -> ProcessConfig:
    """The configuration in these files, and in the `*.toml` files of these directories; raises ConfigFileError."""
    return load_files(paths).config


def load_files(paths: Sequence[str | os.PathLike[str]]) -> LoadedConfig:
    """The configuration with its warnings; raises ConfigFileError."""
    found = Problems()
    documents = read_documents(paths, found)
    config = build_process(documents, found)
    if config is None:
        raise found.error()
    return LoadedConfig(config, found.sorted_warnings(), tuple(document.file.name for document in documents))


def build_process(documents: Sequence[Document], found: Problems) -> ProcessConfig | None:
    """The configuration in these documents; None after mistakes, which are reported."""
    is_complete = not found.errors
    tables = merge_documents(documents, found)
    process = {key.name: key for key in PROCESS.keys}
    values = {name: process[name].kind.read(value, place) for name, (value, place) in tables.process.items()}
    log, traces = _build_log(tables), _build_traces(tables)
    shared = _build_shared(tables, is_complete=is_complete)
    listeners = [(build_listener(mode, table, shared), table) for mode, table in tables.lists if mode != "monitor"]
    _check_distinct([(listener, table) for listener, table in listeners if listener is not None])
    monitors = _build_monitors(tables, [listener.name for listener, _ in listeners if listener is not None])
    if not listeners and not found.errors:
        names = ", ".join(document.file.name for document in documents) or "configuration"
        found.errors.append(Problem(names, 0, "", "no listener; expected at least one table [[server]] or [[client]]"))
    _check_unused(tables, shared)
    if found.errors:
        return None
    config = ProcessConfig(
        tuple(listener for listener, _ in listeners if listener is not None),
        monitors,
        log,
        traces,
        warnings=tuple(str(warning) for warning in found.sorted_warnings() if warning.text != PLAINTEXT_PERMITTED),
    )
    for place, problem in zip(_health_places(tables), check_health_ports(config), strict=True):
        if problem:
            place.refuse(problem)
    return None if found.errors else build_fields(config, PROCESS.keys, values)


def _health_places(tables: Tables) -> list[Place]:
    """The places of the addresses of health ports, in the order of the monitors."""
    own = [tables.single["health"].place] if "health" in tables.single else []
    further = [table.place / "health" for kind, table in tables.lists if kind == "monitor" and "health" in table.values]
    return [place / "listen" for place in (*own, *further)]


def _build_log(tables: Tables) -> LogConfig:
    if "log" not in tables.single:
        return LogConfig()
    return build_fields(LogConfig(), LOG.keys, read_table(tables.single["log"], LOG.keys))


def _build_traces(tables: Tables) -> Traces | None:
    if "traces" not in tables.single:
        return None
    values = read_table(tables.single["traces"], TRACES.keys)
    return build_fields(Traces(values["url"]), TRACES.keys, values) if "url" in values else None


def _build_shared(tables: Tables, *, is_complete: bool) -> Shared:
    identities = {name: build_identity(name, table) for name, table in tables.named["identity"].items()}
    defaults: dict[str, Any] = {}
    place = None
    if "defaults" in tables.single:
        defaults = read_table(tables.single["defaults"], DEFAULTS.keys)
        place = tables.single["defaults"].place
    return Shared(
        identities,
        tables.named["access"],
        defaults,
        place,
        has_all_identities=is_complete and "identity" not in tables.misspelled,
        has_all_access=is_complete and "access" not in tables.misspelled,
    )


def _build_monitors(tables: Tables, names: list[str]) -> tuple[Monitor, ...]:
    main = _build_monitor(tables.single)
    others = [_build_further(table, names) for kind, table in tables.lists if kind == "monitor"]
    return tuple(monitor for monitor in (main, *others) if monitor is not None)


def _build_monitor(tables: Mapping[str, RawTable]) -> Monitor | None:
    status, health, metrics = (tables.get(name) for name in _MONITOR_TABLES)
    if status is None and health is None and metrics is None:
        return None
    reports = build_fields(Metrics(), METRICS.keys, read_table(metrics, METRICS.keys)) if metrics else Metrics()
    return Monitor(_build_status(status) if status else None, reports, health=_build_health(health) if health else None)


def _build_health(table: RawTable) -> HealthPort | None:
    values = read_table(table, HEALTH.keys)
    return build_fields(HealthPort(values["listen"]), HEALTH.keys, values) if "listen" in values else None


def _build_status(table: RawTable) -> Status | None:
    values = read_table(table, STATUS.keys)
    return build_fields(Status(values["listen"]), STATUS.keys, values) if "listen" in values else None


def _build_further(table: RawTable, names: list[str]) -> Monitor | None:
    inner: dict[str, RawTable] = {}
    for name in _MONITOR_TABLES:
        value = table.values.get(name)
        if isinstance(value, dict):
            inner[name] = RawTable(value, table.place / name)
        elif value is not None:
            (table.place / name).refuse("invalid type; expected a table")
    own = RawTable({name: value for name, value in table.values.items() if name not in _MONITOR_TABLES}, table.place)
    listeners = read_table(own, MONITOR.keys, known=_MONITOR_TABLES).get("listeners", ())
    for index, name in enumerate(listeners):
        if name not in names and not table.place.found.errors:
            (table.place / "listeners" / index).refuse(f"unknown listener {quote(name)}{suggest(name, names)[0]}")
    monitor = _build_monitor(inner)
    return None if monitor is None else replace(monitor, listeners=tuple(listeners))


def _check_distinct(listeners: Sequence[tuple[ListenerConfig, RawTable]]) -> None:
    """Report names and addresses that occur twice."""
    names: dict[str, Place] = {}
    addresses: dict[str, Place] = {}
    for listener, table in listeners:
        if listener.name in names and "name" in table.values:
            (table.place / "name").refuse(f"{listener.name} is also the name of the listener at {names[listener.name]}")
        names.setdefault(listener.name, table.place)
        address = str(listener.listen)
        if isinstance(listener.listen, TcpAddress) and listener.listen.port == "0":
            address = f"{address} {len(addresses)}"  # any free port
        if address in addresses:
            (table.place / "listen").refuse(f"{address} is also the address of the listener at {addresses[address]}")
        addresses.setdefault(address, table.place)


def _check_unused(tables: Tables, shared: Shared) -> None:
    """Warn about identities and access lists that no listener uses, and report mistakes in the latter."""
    for name, table in tables.named["access"].items():
        if name not in shared.used_access:
            build_access(named_table(table), is_server=True, is_spiffe=True)
            table.place.warn("not used by any listener")
    for name, table in tables.named["identity"].items():
        if name not in shared.used_identities:
            table.place.warn("not used by any listener")
