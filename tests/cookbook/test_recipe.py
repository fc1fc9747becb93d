"""A page that says something nobody runs or compares is refused, and what it shows is compared as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.cookbook_page import COOKBOOK, is_like, parse_page, read_page

PAGES = sorted(path.stem for path in COOKBOOK.glob("*.md"))
TESTS = (Path(__file__).parent / "test_cookbook.py").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_followed_by_a_test_and_shows_both_sides_and_mistakes(name: str) -> None:
    page = read_page(name)
    assert re.search(rf'^    (?:page = |kitchen\.follow\()read_page\("{name}"\)', TESTS, re.MULTILINE)
    assert page.has("server")
    assert page.has("client")
    assert {"LISTEN", "SERVER", "SERVER_ID", "CLIENT_ID", "SERVICE"} <= page.names.keys()
    assert "## Failure modes" in (COOKBOOK / f"{name}.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_every_name_that_a_page_asks_for_is_used(name: str) -> None:
    page = read_page(name)
    text = "".join(block.text for block in page.blocks if block.use != "names")
    of_others = {"SPIFFE_ENDPOINT_SOCKET", "REDISCLI_AUTH"} | ({"SERVER_ID"} if name == "ssh" else set())  # by %h there
    unused = [one for one in page.names if one not in of_others and not re.search(rf"\$\{{?{one}\b|\"{one}\"", text)]
    assert unused == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```sh\ntunnel server\n```\n", "page.md:1: nothing says how this block is run"),
        ("text\n\n```sh some\ntunnel server\n```\n", "page.md:3: nothing says how this block is run"),
        ("```ini\na = b\n```\n", "nothing says how this block is run"),
        ("```sh names\nlisten = x\n```\n", "'listen = x' is not NAME=value"),
        ("```sh client\nls\n", "a fence is not closed"),
    ],
)
def test_a_block_that_nobody_would_run_is_refused(text: str, why: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(why)):
        parse_page("page.md", text)


def test_a_reader_s_own_values_are_in_files_and_answers_and_never_in_commands() -> None:
    page = parse_page(
        "page.md",
        "```sh names\nexport A=a.example.org:1  # what it is\nB=a.example.org\n```\n```ini file=c\nx = a.example.org:1\n```\n"
        "```sh client exit=3\nls $A a.example.org\n```\n```text\na.example.org said no\n```\n",
    )
    adapted = page.adapted({"A": "[::1]:2", "B": "localhost"})
    assert adapted.files == {"c": "x = [::1]:2\n"}
    assert [block.text for block in adapted.blocks[2:]] == ["ls $A a.example.org\n", "localhost said no\n"]
    assert dict(adapted.blocks[2].options) == {"exit": "3"}
    with pytest.raises(AssertionError, match="the page knows no name"):
        page.adapted({"C": "c"})


@pytest.mark.parametrize(
    ("seen", "wanted", "is_so"),
    [
        ("PONG\n", "PONG\n", True),
        ("PONG\nmore\n", "PONG\n", False),
        ("error: port 4711 is (not) there\n", "error: port ... is (not) there\n", True),
        ("error\nand\nmore\n", "error\n...\n", True),
        ("an error\n", "error\n", False),
    ],
)
def test_three_dots_stand_for_anything(seen: str, wanted: str, is_so: bool) -> None:
    assert is_like(seen, wanted) is is_so
