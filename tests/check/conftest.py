"""Fixtures of the check tests: an agent, and a directory that other users can search."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.workloads import Workloads


@pytest.fixture
def workloads(tmp_path: Path) -> Iterator[Workloads]:
    """An agent of the test's own, and everything that the test starts."""
    with closing(Workloads(tmp_path)) as workloads:
        yield workloads


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may pass through, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="tunnel-check-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)
