"""What all tests with real processes need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.file_identities import FileIdentities
from tests.support.workloads import Workloads


@pytest.fixture
def workloads(tmp_path: Path) -> Iterator[Workloads]:
    """An agent of the test's own, and everything that the test starts."""
    with closing(Workloads(tmp_path)) as workloads:
        yield workloads


@pytest.fixture
def file_identities(tmp_path: Path) -> Iterator[FileIdentities]:
    """An authority of the test's own, and everything that the test starts."""
    with closing(FileIdentities(tmp_path)) as file_identities:
        yield file_identities
