"""Every module of the benchmark can be imported: each is a command, or a part of one, that no other test may use."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import bench

MODULES = sorted(path.stem for path in Path(bench.__file__).parent.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_can_be_imported(name: str) -> None:
    assert import_module(f"bench.{name}")
