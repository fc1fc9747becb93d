"""What all tests with real processes need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from disk import Disk
from world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An agent of the test's own, and everything that the test starts."""
    with closing(World(tmp_path)) as world:
        yield world


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """An authority of the test's own, and everything that the test starts."""
    with closing(Disk(tmp_path)) as disk:
        yield disk
