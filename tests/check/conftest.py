"""What the tests of the check need: an agent of their own, and callers of another user."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An agent of the test's own, and everything that the test starts."""
    with closing(World(tmp_path)) as world:
        yield world


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may pass through, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="tunnel-check-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)
