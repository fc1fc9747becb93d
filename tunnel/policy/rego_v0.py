"""Conversion of Rego v0 to the v1 that the engine accepts.

Only `name[key] { ... }`, a set in v0, has another meaning for the engine. It accepts the rest of v0 (bodies without `if`,
`import input`) unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from tunnel.lazy_dataclass import dataclass

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r]+|\#[^\n]*) | (?P<newline>\n) | (?P<raw>`[^`]*`) | (?P<text>"(?:\\.|[^"\\\n])*")
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*) | (?P<number>[0-9][0-9.eE]*) | (?P<open>[\[({]) | (?P<close>[\])}]) | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_ENDS = ("word", "raw", "text", "number", "close")  # tokens that can end a rule
_STARTS = frozenset(
    "default else import package as not some every with in if contains".split()
)  # these continue on the next line
# After the closing bracket these mean that the rule has a value, a longer name or a v1 keyword.
_CONTINUES = frozenset(("=", ":", ".", "[", "(", "if", "contains"))


@dataclass(frozen=True, slots=True)
class PartialSet:
    """A rule head `name[key]`: its line, and the offsets of both brackets."""

    line: int
    name: str
    opening: int
    closing: int


def find_partial_sets(module: str) -> Iterator[PartialSet]:
    """Yield the rules that are sets in v0, which v1 writes with `contains`."""
    tokens = [match for match in _TOKEN.finditer(module) if match.lastgroup != "blank"]
    depth, before, is_fresh = 0, "", True  # is_fresh: a rule may start here
    for at, (token, following) in enumerate(pairwise(tokens)):
        if depth == 0 and is_fresh and token.lastgroup == "word" and module[token.end() : token.end() + 1] == "[":
            end = _closing(tokens, at + 1)
            if end is not None and _is_set(tokens[end + 1 :]):
                line = module.count("\n", 0, token.start()) + 1
                yield PartialSet(line, token.group(), following.start(), tokens[end].start())
        if token.lastgroup == "newline":
            is_fresh = is_fresh or before in _ENDS
            continue
        depth += (token.lastgroup == "open") - (token.lastgroup == "close")
        before = str(token.lastgroup) if token.group() not in _STARTS else "sign"
        is_fresh = depth == 0 and token.group() == "}"


def to_v1(module: str) -> str:
    """Return the module with its sets in v1 syntax; line numbers stay the same."""
    for found in sorted(find_partial_sets(module), key=lambda each: -each.opening):
        key = module[found.opening + 1 : found.closing]
        module = f"{module[: found.opening]} contains {key}{module[found.closing + 1 :]}"
    return module


def is_v1(module: str) -> bool:
    """Whether a module imports `rego.v1`."""
    return re.search(r"^\s*import\s+rego\.v1\s*(#.*)?$", module, re.MULTILINE) is not None


def _closing(tokens: list[re.Match[str]], opening: int) -> int | None:
    depth = 0
    for at in range(opening, len(tokens)):
        depth += (tokens[at].lastgroup == "open") - (tokens[at].lastgroup == "close")
        if depth == 0:
            return at
    return None


def _is_set(following: list[re.Match[str]]) -> bool:
    """Whether the tokens after the closing bracket give the rule no value."""
    if following and following[0].lastgroup == "newline":
        more = next((token.group() for token in following if token.lastgroup != "newline"), "")
        return more not in ("=", ":", "if", "contains")
    return not following or following[0].group() not in _CONTINUES
