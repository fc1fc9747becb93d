"""The JSON Schema of configuration files (draft 2020-12), made from the declarations of the keys."""

from __future__ import annotations

from typing import Any

from tunnel.config.file.access_lists import ACCESS, RULES_SCHEMA
from tunnel.config.file.identity_keys import IDENTITY
from tunnel.config.file.kinds import LABEL_PATTERN
from tunnel.config.file.listener_keys import ACCESS_KEY, CLIENT, DEFAULTS, SERVER
from tunnel.config.file.process_keys import HEALTH, LOG, METRICS, MONITOR, PROCESS, STATUS, TRACES
from tunnel.config.file.schema import Section

JsonObject = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def build_json_schema() -> JsonObject:
    """The schema; what it accepts is a configuration except for values that only their parsers judge."""
    tables: JsonObject = {
        **_properties(PROCESS),
        "log": _table(LOG),
        "status": _table(STATUS),
        "health": _table(HEALTH),
        "metrics": _table(METRICS),
        "traces": _table(TRACES),
        "defaults": _table(DEFAULTS),
        "identity": _named(_table(IDENTITY)),
        "access": _named({"$ref": "#/$defs/access"}),
        "server": {"type": "array", "items": _listener(SERVER)},
        "client": {"type": "array", "items": _listener(CLIENT)},
        "monitor": {"type": "array", "items": _monitor()},
    }
    return {
        "$schema": _DIALECT,
        "title": "Configuration of tunnel",
        "type": "object",
        "properties": tables,
        "additionalProperties": False,
        "$defs": {"access": _access(), "rules": RULES_SCHEMA},
    }


def _properties(section: Section) -> JsonObject:
    properties: JsonObject = {}
    for key in section.keys:
        default = section.default_of(key)
        encoded = None if default is None or key.is_required else key.kind.encode(default)
        shown = {} if encoded is None else {"default": encoded}
        properties[key.name] = {"description": key.help, **key.kind.schema, **shown}
    return properties


def _table(section: Section, extra: JsonObject | None = None) -> JsonObject:
    required = [key.name for key in section.keys if key.is_required]
    return {
        "description": section.help,
        "type": "object",
        "properties": {**_properties(section), **(extra or {})},
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _named(table: JsonObject) -> JsonObject:
    return {"type": "object", "propertyNames": {"pattern": LABEL_PATTERN}, "additionalProperties": table}


def _access() -> JsonObject:
    return _table(ACCESS, {"rules": {"$ref": "#/$defs/rules"}})


def _listener(section: Section) -> JsonObject:
    name = {"description": "The name of an access list", "type": "string", "pattern": LABEL_PATTERN}
    access = {"anyOf": [name, {"$ref": "#/$defs/rules"}, {"$ref": "#/$defs/access"}]}
    return _table(section, {ACCESS_KEY: {"description": "Access rules", **access}})


def _monitor() -> JsonObject:
    return _table(MONITOR, {"status": _table(STATUS), "health": _table(HEALTH), "metrics": _table(METRICS)})
