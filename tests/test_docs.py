"""What the documents say about the files, and about the commands, is true."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

import pytest

from tunnel.config.commands import load_commands
from tunnel.config.parser import Flag
from tunnel.errors import Denial, TargetFault, TlsFault, WireFault
from tunnel.relay.close_reason import CloseReason

ROOT = Path(__file__).parent.parent
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
RECIPES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs/cookbook").glob("*.md"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bench/README.md", *PAGES, *RECIPES]
_PATH = re.compile(r"`((?:tunnel|tests|docs|deploy|bench|\.ci)/[\w./-]*)`")
_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]+)")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    named = _PATH.findall((ROOT / document).read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert [page for page in PAGES if f"]({page})" not in text] == []


def test_the_cookbook_leads_to_every_recipe() -> None:
    index = "docs/cookbook/README.md"
    assert f"]({index})" in (ROOT / "README.md").read_text()
    text = (ROOT / index).read_text()
    assert [page for page in RECIPES if page != index and f"]({Path(page).name})" not in text] == []


def _section(document: str, heading: str) -> str:
    """The text under a heading of the second level."""
    return (ROOT / document).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def _steps(text: str) -> list[str]:
    return re.split(r"^\d+\. ", text, flags=re.MULTILINE)[1:]


def test_the_table_of_the_architecture_page_has_every_package() -> None:
    packages = {f"{path.parent.name}/" for path in (ROOT / "tunnel").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"^\| `(\w+/)` \|", _section("docs/architecture.md", "Packages"), re.MULTILINE))


@pytest.mark.parametrize(("heading", "most"), [("Connection lifecycle", 10), ("Identity update", 8)])
def test_the_steps_of_the_architecture_page_are_few_and_name_at_most_two_files(heading: str, most: int) -> None:
    steps = _steps(_section("docs/architecture.md", heading))
    assert 1 < len(steps) <= most
    assert [step for step in steps if len(set(_PATH.findall(step))) > 2] == []


@pytest.mark.parametrize("reasons", [Denial, TlsFault, TargetFault, WireFault, CloseReason])
def test_the_log_page_explains_every_reason_of_a_connection(reasons: type[Enum]) -> None:
    heads = re.findall(r"^\| (`.+?) \|", (ROOT / "docs/log.md").read_text(), re.MULTILINE)
    explained = {word for head in heads for word in re.findall(r"`([^`]+)`", head)}
    assert {reason.value for reason in reasons} <= explained


def test_the_glossary_is_sorted_and_says_where_each_term_is_defined() -> None:
    rows = re.findall(r"^\| `?([\w -]+?)`? \| .+ \| (`tunnel/.+`) \|$", _section("CONTRIBUTING.md", "Glossary"), re.MULTILINE)
    terms = [term for term, _ in rows]
    assert len(terms) == _section("CONTRIBUTING.md", "Glossary").count("\n|") - 2  # the head of the table
    assert terms == sorted(set(terms), key=str.lower)


def _flags_of(*names: str) -> set[str]:
    flags: list[Flag[object]] = [flag for command in load_commands() if command.name in names for flag in command.flags]
    return {flag.name for flag in flags} | {"help", "version"}


def test_every_flag_that_the_readme_shows_exists() -> None:
    text = (ROOT / "README.md").read_text().partition("## Use")[2]
    assert set(_FLAG.findall(text)) <= _flags_of(*(command.name for command in load_commands()))


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readme_opens_with_two_commands_for_a_fresh_machine() -> None:
    first = (ROOT / "README.md").read_text().split("```")[1].splitlines()[1:]
    assert len(first) == 2
    assert first[0].endswith("tunnel demo")
    assert first[1].endswith(".ci/test")
    assert "README.md" in (ROOT / ".ci/run").read_text()  # the gate runs the second line as it stands there
