"""Placeholders and environment variables with the address of a tunnel."""

from __future__ import annotations

import pytest

from tunnel.config.placeholders import check_placeholders, environment_variables, fill_placeholders
from tunnel.errors import ConfigError

PORT = {"host": "127.0.0.1", "port": "5000", "addr": "127.0.0.1:5000"}
SOCKET = {"socket": "/d/s", "dir": "/d"}


def test_one_target_fills_its_placeholders_and_leaves_other_braces() -> None:
    given = ["-p{port}", "{host}", "{{addr}}", "{x}", "{port", "{}", "{PORT}", "${port}", "{a.port}"]
    filled = ["-p5000", "127.0.0.1", "{127.0.0.1:5000}", "{x}", "{port", "{}", "{PORT}", "$5000", "{a.port}"]
    assert fill_placeholders(given, {"": PORT}) == filled


def test_the_only_target_needs_no_name_though_it_has_one() -> None:
    assert fill_placeholders(["{port} {a.port} {b.port}"], {"a": PORT}) == ["5000 5000 {b.port}"]
    assert environment_variables({"a": SOCKET}) == {
        "TUNNEL_SOCKET": "/d/s",
        "TUNNEL_DIR": "/d",
        "A_TUNNEL_SOCKET": "/d/s",
        "A_TUNNEL_DIR": "/d",
    }


def test_several_targets_are_distinguished_by_name() -> None:
    targets = {"a": PORT, "b": SOCKET, "": PORT}
    assert fill_placeholders(["{port} {a.addr} {b.dir}"], targets) == ["5000 127.0.0.1:5000 /d"]
    assert set(environment_variables(targets)) == {
        *("TUNNEL_HOST", "TUNNEL_PORT", "TUNNEL_ADDR"),
        *("A_TUNNEL_HOST", "A_TUNNEL_PORT", "A_TUNNEL_ADDR"),
        *("B_TUNNEL_SOCKET", "B_TUNNEL_DIR"),
    }


def test_an_ambiguous_placeholder_is_refused() -> None:
    check_placeholders(["{a.port} {b.port} {c.port} {x}"], {"a": PORT, "b": PORT})
    with pytest.raises(ConfigError, match=r"{port} names no target; expected one of {a.port}, {b.port}"):
        check_placeholders(["{port}"], {"a": PORT, "b": PORT})
