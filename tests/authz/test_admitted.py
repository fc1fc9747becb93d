"""`Admitted` is constructed in one module only."""

from __future__ import annotations

import ast
from pathlib import Path

import tunnel
from tunnel.authz.authorizer import allow_anonymous, permit_plaintext

PACKAGE = Path(tunnel.__file__).parent


def constructions(source: str) -> int:
    """How often a source makes an `Admitted`, by its name or as an attribute."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    names = (call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls)
    return sum(name == "Admitted" for name in names)


def test_admitted_is_made_by_the_authorizer_alone() -> None:
    makers = {path.relative_to(PACKAGE).as_posix(): constructions(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {path: count for path, count in makers.items() if count} == {"authz/authorizer.py": 3}


def test_every_form_of_a_construction_is_found() -> None:
    assert constructions("x = Admitted(peer, 'any')\ny = peer_module.Admitted(peer, rule='any')") == 2
    assert constructions("def f(a: Admitted) -> Admitted: return a") == 0


def test_a_plain_client_has_no_peer_and_is_told_from_a_client_without_certificate() -> None:
    plain, anonymous = permit_plaintext(), allow_anonymous("disable-authentication")
    assert str(plain) == "peer=plaintext rule=plaintext"
    assert str(anonymous) == "peer=anonymous rule=disable-authentication"
    assert (plain.peer, plain.is_plaintext, anonymous.is_plaintext) == (None, True, False)
