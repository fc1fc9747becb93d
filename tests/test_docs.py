"""What the documents say about the files, and about the commands, is true."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

import pytest

from tunnel.cli.command import Flag
from tunnel.commands.registry import load_commands
from tunnel.errors import Denial, IdentityLoss, LimitFault, TargetFault, TlsFault, WireFault
from tunnel.relay.close_reason import CloseReason
from tunnel.status.counters import Counters

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


def test_the_table_of_the_architecture_page_has_each_package_and_no_other() -> None:
    packages = {f"{path.parent.name}/" for path in (ROOT / "tunnel").glob("*/__init__.py")}
    assert packages == set(re.findall(r"^\| `(\w+/)` \|", _section("docs/architecture.md", "Packages"), re.MULTILINE))


@pytest.mark.parametrize(("heading", "most"), [("Connection lifecycle", 10), ("Identity update", 8)])
def test_the_steps_of_the_architecture_page_are_few_and_name_at_most_two_files(heading: str, most: int) -> None:
    steps = _steps(_section("docs/architecture.md", heading))
    assert 1 < len(steps) <= most
    assert [step for step in steps if len(set(_PATH.findall(step))) > 2] == []


@pytest.mark.parametrize("reasons", [Denial, LimitFault, TlsFault, TargetFault, WireFault, CloseReason, IdentityLoss])
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


# The first section of a page lists its options, under this name. Recipes have variables that the reader replaces.
_FIRST = {"docs/compatibility.md": "Verdicts", "docs/cookbook/README.md": "Recipes"}
_GUIDES = [page for page in [*PAGES, *RECIPES] if page != "docs/architecture.md"]
_LINK = re.compile(r"\]\(([^)\s:]*?)(?:#([^)\s]+))?\)")
_REASON = re.compile(r"reason=([a-z][a-z-]*[a-z])")


def _text_of(page: str) -> str:
    """The page without its blocks of code, in which a line may look like a heading."""
    return re.sub(r"^```.*?^```$", "```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def _anchors_of(page: str) -> set[str]:
    """The fragments by which GitHub addresses the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", _text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", _GUIDES)
def test_a_page_opens_with_its_purpose_in_one_sentence(page: str) -> None:
    title, purpose = _text_of(page).split("\n\n")[:2]
    assert title.startswith("# ")
    assert "\n" not in title
    assert re.findall(r"[.!?:](?=\s|$)", purpose).count(".") == 1
    assert purpose.endswith(".")


@pytest.mark.parametrize("page", _GUIDES)
def test_a_page_has_command_options_failure_modes_and_see_also_in_this_order(page: str) -> None:
    text = _text_of(page)
    opening, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    headings = [section.partition("\n")[0] for section in sections]
    is_recipe = page in RECIPES
    assert headings[0] == _FIRST.get(page, "Variables" if is_recipe else "Options")
    assert headings[-2:] == ["Failure modes", "See also"]
    assert is_recipe or "```" in opening, "the command comes before the options"
    assert "\n* " in sections[-1]


@pytest.mark.parametrize("page", _GUIDES)
def test_options_and_failure_modes_are_tables_or_cases(page: str) -> None:
    sections = {part.partition("\n")[0]: part for part in re.split(r"^## ", _text_of(page), flags=re.MULTILINE)}
    if page not in (*RECIPES, "docs/compatibility.md"):
        assert "\n|---|" in sections["Options"]
    assert re.search(r"^(?:\|---\||### |\* \*\*)", sections["Failure modes"], re.MULTILINE)


@pytest.mark.parametrize("page", DOCUMENTS)
def test_every_link_leads_to_a_page_and_a_heading(page: str) -> None:
    folder = (ROOT / page).parent
    for target, anchor in _LINK.findall(_text_of(page)):
        path = (folder / target).resolve() if target else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in _anchors_of(str(path.relative_to(ROOT))), f"{target}#{anchor}"


@pytest.mark.parametrize("page", _GUIDES)
def test_another_page_leads_to_every_page(page: str) -> None:
    others = [other for other in _GUIDES if other != page]
    targets = {
        (ROOT / other).parent.joinpath(target).resolve() for other in others for target, _ in _LINK.findall(_text_of(other))
    }
    assert (ROOT / page).resolve() in targets


def test_every_reason_that_a_page_shows_is_one_of_the_program() -> None:
    source = "".join(path.read_text() for path in (ROOT / "tunnel").rglob("*.py"))
    shown = {word for page in _GUIDES for word in _REASON.findall((ROOT / page).read_text())}
    assert {word for word in shown if f'"{word}"' not in source and f"reason={word}" not in source} == set()


def test_the_log_page_explains_every_outcome() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", _section("docs/log.md", "Outcomes"), re.MULTILINE)) == set(Counters().outcomes())


def test_the_log_page_shows_lines_of_the_program() -> None:
    section = _section("docs/log.md", "Connection lines")
    source = "".join(path.read_text() for path in (ROOT / "tunnel").rglob("*.py"))
    starts = [
        re.split(r"[A-Z]{3,}|\.\.\.|[a-z]+=", line)[0].strip() for line in re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    ]
    assert [start for start in starts if start not in source] == []


# Messages of other programs, and one of ours with a word that the program fills in.
_NOT_LITERAL = {
    "unsafe legacy renegotiation disabled",
    "command not found: compdef",
    "error building proxy header",
    "error writing proxy header",
}
_FILLED_IN = re.compile(r"\.\.\.|\b\d+\w*|\b[A-Z]+\b|'[^']*'|[a-z]+=")


@pytest.mark.parametrize("page", [page for page in PAGES if page in _GUIDES])
def test_the_messages_among_the_failure_modes_are_those_of_the_program(page: str) -> None:
    source = "".join(path.read_text() for path in (ROOT / "tunnel").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # a text over several lines
    section = _text_of(page).partition("## Failure modes")[2].partition("\n## ")[0]
    symptoms = re.findall(r"^(?:\| ([^|]+) \||\* \*\*(.+?)\*\*)", section, re.MULTILINE)
    messages = [text for row in symptoms for text in re.findall(r"`([^`]+)`", "".join(row)) if " " in text]
    parts = [part.strip(" :;") for text in messages for part in _FILLED_IN.split(text)]
    assert [part for part in parts if len(part) >= 10 and part not in source and part not in _NOT_LITERAL] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page in _GUIDES and page not in _FIRST])
def test_every_flag_among_the_options_of_a_page_exists(page: str) -> None:
    section = _text_of(page).partition("## Options")[2].partition("\n## ")[0]
    texts = {"completion-script-bash", "completion-script-zsh", "completion-bash", "help-man", "help-custom-man"}
    assert set(_FLAG.findall(section)) <= _flags_of(*(command.name for command in load_commands())) | texts
