"""What the tests of the installed command need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from stand import Papers, Stand, make_papers


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return make_papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def stand(tmp_path: Path, papers: Papers) -> Iterator[Stand]:
    """Everything that a test starts, with certificates on disk."""
    with closing(Stand(tmp_path, papers)) as stand:
        yield stand
