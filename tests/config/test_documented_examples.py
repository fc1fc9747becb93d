"""Every configuration in the documents is one that the program accepts, as it is written there."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from tunnel.config.file.encode import Style, encode_config
from tunnel.config.file.json_schema import build_json_schema
from tunnel.config.file.loader import load_files

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^ *```toml[^\n]*\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE), 1)
]
IDENTITY = '\n[identity.default]\nworkload-api = "unix:///run/spire/agent.sock"\n'
LISTENER = (
    '\n[[server]]\nlisten = ":8443"\ntarget = "localhost:8080"\naccess = [{ allow = { uri = "spiffe://example.org/web" } }]\n'
)
EXPECTED_WARNINGS = {"plain TCP clients are accepted without authentication", "not used by any listener"}


def complete(block: str) -> str:
    """The block as a whole file: with an identity and a listener, if it has none."""
    tables = tomllib.loads(block)
    has_listener = "server" in tables or "client" in tables
    return block + ("" if "identity" in tables else IDENTITY) + ("" if has_listener else LISTENER)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_loader_accepts_every_example_without_an_unexpected_warning(block: str, tmp_path: Path) -> None:
    file = tmp_path / "tunnel.toml"
    file.write_text(complete(block))
    assert {warning.text for warning in load_files([file]).warnings} <= EXPECTED_WARNINGS


@pytest.mark.parametrize("block", BLOCKS)
def test_the_schema_accepts_every_example(block: str) -> None:
    schema = json.loads(json.dumps(build_json_schema()))
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(tomllib.loads(complete(block)))) == []


@pytest.mark.parametrize("block", BLOCKS)
def test_the_effective_configuration_of_every_example_loads_again(block: str, tmp_path: Path) -> None:
    file, shown = tmp_path / "tunnel.toml", tmp_path / "shown.toml"
    file.write_text(complete(block))
    config = load_files([file]).config
    shown.write_text(encode_config(config, Style(is_complete=True)))
    assert load_files([shown]).config.listeners == config.listeners


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 5
