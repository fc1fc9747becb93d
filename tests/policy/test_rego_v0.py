"""Sets of Rego v0 are found, and nothing else is."""

from __future__ import annotations

import pytest

from tunnel.policy.rego_v0 import find_partial_sets, is_v1, to_v1


@pytest.mark.parametrize(
    ("v0", "v1"),
    [
        ("names[x] { x := 1 }", "names contains x { x := 1 }"),
        ("names[x]\n{ x := 1 }", "names contains x\n{ x := 1 }"),
        ('names["a"]', 'names contains "a"'),
        ('names["a"]\nnames["b"]\n', 'names contains "a"\nnames contains "b"\n'),
        ("names[[x, y]] { x := 1; y := [2][_] }", "names contains [x, y] { x := 1; y := [2][_] }"),
        ('names[{"a": x}] { x := 1 }', 'names contains {"a": x} { x := 1 }'),
        ("names[f(x)] { x := 1 } { x := 2 }", "names contains f(x) { x := 1 } { x := 2 }"),
        ("import input # here\nnames[x] { x := 1 }", "import input # here\nnames contains x { x := 1 }"),
        ("a = 1 names[x] { x := 1 }", "a = 1 names[x] { x := 1 }"),  # not even OPA reads that
        ("allow { true }\nnames[x] { x := 1 }", "allow { true }\nnames contains x { x := 1 }"),
        ("allow { true } names[x] { x := 1 }", "allow { true } names contains x { x := 1 }"),
        ("names[\n  x\n] { x := 1 }", "names contains \n  x\n { x := 1 }"),
        ("names[x] { x := 1 } # names[y] {\n", "names contains x { x := 1 } # names[y] {\n"),
    ],
)
def test_a_set_is_written_as_v1_does(v0: str, v1: str) -> None:
    assert to_v1(v0) == v1


@pytest.mark.parametrize(
    "module",
    [
        "names[x] = y { y := data.n[x] }",
        "names[x] := y { y := data.n[x] }",
        "names[x] = y\n{ y := data.n[x] }",
        "names.a[x] { x := 1 }",
        "names[x].a = 1 { x := 1 }",
        "names[x] if { x := 1 }",
        "names contains x if { x := 1 }",
        "allow { names[x]; x > 1 }",
        "allow {\n  names[x]\n  other[y]\n}",
        "allow {\n  not names[x]\n}",
        'text = "\nnames[x] { x }"',
        "text = `\nnames[x] { x }`",
        "# names[x] { x := 1 }",
        "default names[x] = 1",
        "list = [\nnames[x]\n]",
        "value =\n  names[0]\n",
        "f(x) = y {\n  y := names[x]\n}",
        "import data.names\nallow { names[input.x] }",
    ],
)
def test_what_is_no_set_stays(module: str) -> None:
    assert to_v1(module) == module


def test_the_line_of_a_set_is_reported() -> None:
    assert [(found.line, found.name) for found in find_partial_sets("package p\n\nnames[x] { x := 1 }\n")] == [(3, "names")]


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_a_malformed_module_raises_no_other_error(cut: int) -> None:
    to_v1('package p\nnames[x] { x := "a" }\nother["`"] { `raw [` }\n'[:cut])


def test_a_module_can_ask_for_v1() -> None:
    assert is_v1("package p\nimport rego.v1\n")
    assert is_v1("package p\n  import rego.v1 # now\n")
    assert not is_v1("package p\n# import rego.v1\n")
