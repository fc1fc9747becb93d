"""`Admitted` is constructed in one module only."""

from __future__ import annotations

import ast
from pathlib import Path

import tunnel

PACKAGE = Path(tunnel.__file__).parent


def constructions(source: str) -> int:
    """How often a source makes an `Admitted`, by its name or as an attribute."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    names = (call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls)
    return sum(name == "Admitted" for name in names)


def test_admitted_is_made_by_the_authorizer_alone() -> None:
    makers = {path.relative_to(PACKAGE).as_posix(): constructions(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {path: count for path, count in makers.items() if count} == {"authz/authorizer.py": 2}


def test_every_form_of_a_construction_is_found() -> None:
    assert constructions("x = Admitted(peer, 'any')\ny = peer_module.Admitted(peer, rule='any')") == 2
    assert constructions("def f(a: Admitted) -> Admitted: return a") == 0
