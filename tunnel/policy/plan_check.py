"""Checks of a compiled plan (OPA's intermediate representation, in JSON) that OPA makes and the engine does not.

The engine treats a variable that is never bound as undefined, so that a typo in `not usr == "mallory"` would admit every peer,
and it takes data with the path of a rule as the value of that rule. OPA rejects both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tunnel.lazy_dataclass import dataclass, field

_INPUT_AND_DATA = (0, 1)
_RESULTS = ("target", "result")
_PRINT = "print"  # works, although the engine reports it as unavailable


@dataclass(slots=True)
class _Seen:
    """The variables and functions that the statements of a plan bind, read and call, with their first position."""

    bound: set[int] = field(default_factory=lambda: set(_INPUT_AND_DATA))
    read: dict[int, str] = field(default_factory=dict)
    called: dict[str, str] = field(default_factory=dict)
    calls: dict[str, set[str]] = field(default_factory=dict)


def find_fault(plan: Mapping[str, Any], is_available: Callable[[str], bool]) -> str | None:
    """Return the first error in a plan, with its position `module:line: `, or None."""
    seen = _Seen()
    files = [file["value"] for file in plan["static"].get("files", ())]
    functions = {function["name"]: function for function in plan["funcs"]["funcs"]}
    for function in functions.values():
        seen.bound.update(function["params"])
        _follow(function["blocks"], function["name"], "", files, seen)
    _follow(plan["plans"]["plans"], "", "", files, seen)
    built_in = {each["name"] for each in plan["static"]["builtin_funcs"]}
    return next(_faults(seen, set(functions), built_in, is_available), None)


def find_conflict(plan: Mapping[str, Any], data: Any) -> str | None:
    """Return the error for the first rule that conflicts with data, or None."""
    for function in plan["funcs"]["funcs"]:
        path = function["path"][1:]  # the first part is not from the policy
        if _is_taken(data, path):
            return f"there is both a rule and data for data.{'.'.join(path)}"
    return None


def _is_taken(data: Any, path: list[str]) -> bool:
    for name in path:
        if not isinstance(data, dict):
            return True
        if name not in data:
            return False
        data = data[name]
    return True


def _faults(seen: _Seen, functions: set[str], built_in: set[str], is_available: Callable[[str], bool]) -> Iterator[str]:
    for name, place in seen.called.items():
        if name not in functions | built_in:
            yield f"{place}undefined function {name}"
        if name in built_in and name != _PRINT and not is_available(name):
            yield f"{place}the engine does not have the function {name}"
    for number, place in seen.read.items():
        if number not in seen.bound:
            yield f"{place}unsafe variable: it is bound nowhere; bind it with := or some first"
    for name in seen.calls:
        if _reaches(seen.calls, name):
            yield f"the rule {name.partition('.')[2]} refers to itself"


def _follow(part: Any, function: str, place: str, files: list[str], seen: _Seen) -> None:
    """Collect a part of the plan and everything inside it."""
    if isinstance(part, list):
        for each in part:
            _follow(each, function, place, files, seen)
    elif isinstance(part, dict):
        if part.get("type") == "local":
            seen.read.setdefault(part["value"], place)
            return
        statement = part.get("stmt")
        if isinstance(statement, dict):
            place = f"{files[statement['file']]}:{statement['row'] + 1}: " if "row" in statement else place
            _collect(part["type"], statement, function, place, seen)
        for each in part.values():
            _follow(each, function, place, files, seen)


def _collect(kind: str, statement: Mapping[str, Any], function: str, place: str, seen: _Seen) -> None:
    if kind != "ResetLocalStmt":  # it binds no value
        seen.bound.update(statement[name] for name in _RESULTS if isinstance(statement.get(name), int))
    if kind == "ScanStmt":
        seen.bound.update((statement["key"], statement["value"]))
        seen.read.setdefault(statement["source"], place)
    if kind == "CallStmt":
        seen.called.setdefault(statement["func"], place)
        seen.calls.setdefault(function, set()).add(statement["func"])


def _reaches(calls: Mapping[str, set[str]], start: str) -> bool:
    """Whether a function calls itself, directly or not."""
    seen: set[str] = set()
    waiting = list(calls[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += calls.get(name, ())
    return start in seen
