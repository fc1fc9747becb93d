"""The JSON Schema, the tables of the documentation, and the code agree about the keys of a configuration file."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.commands.test_config_convert import LINES
from tests.config.test_config_file_mistakes import VALID
from tunnel.commands.config.convert import build_lines
from tunnel.config.file.access_lists import ACCESS
from tunnel.config.file.encode import Style, encode_config
from tunnel.config.file.identity_keys import IDENTITY
from tunnel.config.file.json_schema import build_json_schema
from tunnel.config.file.listener_keys import CLIENT, DEFAULTS, SERVER, TUNABLE_KEYS
from tunnel.config.file.loader import load_config
from tunnel.config.file.process_keys import HEALTH, LOG, METRICS, MONITOR, PROCESS, STATUS, TRACES
from tunnel.config.file.schema import Key, Section
from tunnel.config.model import (
    AccessLogConfig,
    HealthCheck,
    HealthPort,
    ListenerConfig,
    LogConfig,
    Metrics,
    NameResolution,
    ProcessConfig,
    Revocation,
    Status,
    TlsOptions,
    Traces,
)
from tunnel.lazy_dataclass import fields

SCHEMA = json.loads(json.dumps(build_json_schema()))
SECTIONS = (PROCESS, LOG, STATUS, HEALTH, METRICS, TRACES, MONITOR, IDENTITY, ACCESS, SERVER, CLIENT, DEFAULTS)
KEYS = [(section, key) for section in SECTIONS for key in section.keys]
PAGE = Path(__file__).parent.parent.parent / "docs/configuration.md"


def is_valid(document: object) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


def test_the_schema_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("line", LINES, ids=map(" ".join, LINES))
@pytest.mark.parametrize("is_complete", [False, True], ids=["convert", "show"])
def test_the_schema_accepts_every_file_that_is_written(line: tuple[str, ...], is_complete: bool) -> None:
    text = encode_config(build_lines(line, {}), Style(is_complete))
    assert list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(tomllib.loads(text))) == []


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        VALID + "x = 1",
        VALID + "max-handshakes = -1",
        VALID + "plaintext = true",
        VALID + "on-withdrawal = 'never'",
        VALID + "connect-timeout = '10'",
        VALID + "name = 'a b'",
        VALID.replace("allow", "alow"),
        VALID.replace("listen", "lisen"),
        VALID + "[identity.'a b']\n",
        VALID + "[status]\n",
        VALID + "[access.x]\nrules = []\n",
        VALID + "[[monitor]]\nstatus = 1\n",
        VALID + "[traces]\nratio = 1\n",
        VALID + "[traces]\nurl = 'http://c/v1/traces'\nratio = 0\n",
    ],
)
def test_the_schema_refuses_mistakes(text: str) -> None:
    assert is_valid(tomllib.loads(VALID))
    assert not is_valid(tomllib.loads(text))


@pytest.mark.parametrize(("section", "key"), KEYS, ids=[f"{section.path} {key.name}" for section, key in KEYS])
def test_a_default_is_a_value_that_its_key_accepts(section: Section, key: Key) -> None:
    default = section.default_of(key)
    encoded = None if default is None or key.is_required else key.kind.encode(default)
    if encoded is not None:
        assert jsonschema.Draft202012Validator(dict(key.kind.schema)).is_valid(json.loads(json.dumps(encoded)))


def test_help_texts_are_fragments_without_a_default_that_is_written_elsewhere() -> None:
    for section, key in KEYS:
        assert not key.help.endswith("."), key.name
        assert "(default" not in key.help, key.name
        if section.default_of(key) not in (None, "", ()):
            assert "default" not in key.help, key.name


# Fields that have no key: they are set by a part of the configuration that has one, or by commands without a file.
OTHER_FIELDS = {
    ListenerConfig: {
        "is_server",
        "identity",
        "access",
        "plaintext",
        "tls",
        "is_private",
        "warnings",
        "name",
        "resolution",
        "health_check",
    },
    ProcessConfig: {"listeners", "monitors", "log", "traces", "warnings"},
    TlsOptions: {"ciphers"},
    HealthCheck: set(),
    NameResolution: set(),
    Status: set(),
    HealthPort: set(),
    Metrics: set(),
    Traces: set(),
    LogConfig: {"access"},
    AccessLogConfig: set(),
    Revocation: set(),
}


def named_fields(*sections: Section) -> set[str]:
    return {key.field for section in sections for key in section.keys if key.field}


def inner_fields(outer: str, section: Section) -> set[str]:
    return {name.removeprefix(f"{outer}.") for name in named_fields(section) if name.startswith(f"{outer}.")}


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (ListenerConfig, {name for name in named_fields(SERVER, CLIENT) if "." not in name}),
        (TlsOptions, inner_fields("tls", SERVER)),
        (HealthCheck, inner_fields("health_check", SERVER)),
        (NameResolution, inner_fields("resolution", SERVER)),
        (Revocation, inner_fields("revocation", IDENTITY)),
        (ProcessConfig, named_fields(PROCESS)),
        (Status, named_fields(STATUS)),
        (HealthPort, named_fields(HEALTH)),
        (Metrics, named_fields(METRICS)),
        (Traces, named_fields(TRACES)),
        (LogConfig, {name for name in named_fields(LOG) if "." not in name}),
        (AccessLogConfig, inner_fields("access", LOG)),
    ],
)
def test_every_field_of_the_configuration_has_a_key(model: Any, names: set[str]) -> None:
    assert {field.name for field in fields(model)} - OTHER_FIELDS[model] == names


def test_every_key_of_a_listener_can_have_a_default_except_its_own() -> None:
    assert {key.name for key in TUNABLE_KEYS} == ({*SERVER.names(), *CLIENT.names()} - {"name", "listen", "target"})


# What servers and clients have is one table of the page.
LISTENER = Section("listener", "", ListenerConfig, (*SERVER.keys[:3], *TUNABLE_KEYS))


def table_rows(section: Section) -> list[str]:
    """The rows of the documentation about a section."""
    rows = []
    for key in section.keys:
        default = section.default_of(key)
        encoded = None if default is None or key.is_required else key.kind.encode(default)
        shown = "required" if key.is_required else "" if encoded is None else f"`{json.dumps(encoded)}`"
        modes = "" if len(key.modes) > 1 else f". `[[{key.modes[0]}]]` only"
        rows.append(f"| `{key.name}` | {key.kind.form} | {shown} | {key.help}{modes} |".replace("|  |", "| |"))
    return rows


def documented(heading: str) -> list[str]:
    section = PAGE.read_text().partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `.+$", section, re.MULTILINE)


@pytest.mark.parametrize(
    ("heading", "section"),
    [
        ("Top level", PROCESS),
        ("Log", LOG),
        ("Status", STATUS),
        ("Health", HEALTH),
        ("Metrics", METRICS),
        ("Traces", TRACES),
        ("Monitor", MONITOR),
        ("Identity", IDENTITY),
        ("Access", ACCESS),
        ("Server and client", LISTENER),
    ],
)
def test_the_documentation_has_the_table_of_the_schema(heading: str, section: Section) -> None:
    assert documented(heading) == table_rows(section)


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    example = PAGE.read_text().partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "t.toml").write_text(example)
    assert [listener.name for listener in load_config([tmp_path / "t.toml"]).listeners] == ["redis", "cache"]
    assert is_valid(tomllib.loads(example))
