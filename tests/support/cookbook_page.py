"""A page of the cookbook as data: its blocks, their use, and the names that a reader adapts.

The words after the language of a block, which the rendered page does not show, define its use:

    ```sh names             NAME=value lines that the reader and the test adapt
    ```sh agent             a command that keeps running: the development Workload API
    ```sh service           a command that keeps running: the service itself
    ```sh server            a command that keeps running, on the host of the service
    ```sh admin             a command that ends, on the host of the service, run by its owner
    ```sh client            a command that ends, on the client's host; `exit=N` unless the exit code is 0
    ```sh daemon            a command that keeps running, on the client's host
    ```LANGUAGE file=NAME   a file for the service or the client
    ```text                 the output of the command before it; `...` matches anything
    ```text log             lines of the server's log at this point
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tunnel.lazy_dataclass import dataclass, replace

COOKBOOK = Path(__file__).parents[2] / "docs" / "cookbook"
_USES = frozenset({"names", "agent", "service", "server", "admin", "client", "daemon"})
_FENCE = re.compile(r"^```(\w*) ?(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"(?:export )?([A-Z_]+)=(\S+)(?: +#.*)?")


@dataclass(frozen=True, slots=True)
class Block:
    """One code block."""

    use: str  # the word above, or "file", "output", "log"
    text: str
    options: Mapping[str, str]
    where: str  # for messages: the page and the line


@dataclass(frozen=True, slots=True)
class Page:
    """The code blocks of one page, in order."""

    blocks: tuple[Block, ...]
    names: Mapping[str, str]

    def adapted(self, values: Mapping[str, str]) -> Page:
        """The page with these values in place of its names; every one must occur on the page."""
        assert values.keys() <= self.names.keys(), f"the page knows no name {sorted(values.keys() - self.names.keys())}"
        changes = {self.names[name]: value for name, value in values.items()}
        blocks = tuple(
            replace(block, text=_exchange(block.text, changes)) if block.use in ("file", "output", "log") else block
            for block in self.blocks
        )
        return Page(blocks, {**self.names, **values})

    def has(self, use: str) -> bool:
        """Whether there is a block for this use."""
        return any(block.use == use for block in self.blocks)

    @property
    def files(self) -> dict[str, str]:
        """The text of each file by its name."""
        return {block.options["file"]: block.text for block in self.blocks if block.use == "file"}


def _exchange(text: str, changes: Mapping[str, str]) -> str:
    if not changes:
        return text
    wanted = re.compile("|".join(map(re.escape, sorted(changes, key=len, reverse=True))))
    return wanted.sub(lambda match: changes[match[0]], text)


def parse_page(title: str, text: str) -> Page:
    """Parse a page; raises AssertionError for a block that would not be run or compared."""
    assert len(re.findall("^ *```", text, re.MULTILINE)) == 2 * len(_FENCE.findall(text)), f"{title}: a fence is not closed"
    blocks = []
    for match in _FENCE.finditer(text):
        where = f"{title}:{text.count(chr(10), 0, match.start()) + 1}"
        blocks.append(_parse_block(match[1], match[2].split(), match[3], where))
    names: dict[str, str] = {}
    for block in blocks:
        if block.use == "names":
            for line in block.text.splitlines():
                found = _NAME.fullmatch(line)
                assert found, f"{block.where}: {line!r} is not NAME=value"
                names[found[1]] = found[2]
    return Page(tuple(blocks), names)


def _parse_block(language: str, words: list[str], text: str, where: str) -> Block:
    options = dict(word.split("=", 1) for word in words if "=" in word)
    uses = [word for word in words if "=" not in word]
    if "file" in options:
        use = "file"
    elif language == "text":
        use = "log" if uses == ["log"] else "output"
    else:
        use = uses[0] if uses else ""
        assert (language, use in _USES) == ("sh", True), f"{where}: nothing says how this block is run"
    return Block(use, text, options, where)


def read_page(name: str) -> Page:
    """A page of docs/cookbook by its name."""
    path = COOKBOOK / f"{name}.md"
    return parse_page(path.name, path.read_text())


def is_like(seen: str, wanted: str) -> bool:
    """Whether a text matches the one on a page, where `...` matches anything."""
    return re.fullmatch(".*".join(map(re.escape, wanted.strip().split("..."))), seen.strip(), re.DOTALL) is not None
