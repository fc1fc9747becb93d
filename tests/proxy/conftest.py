"""Fixtures of the proxy tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.tunnel_harness import Harnesses, TunnelHarness


@pytest.fixture
def harnesses(tmp_path: Path) -> Iterator[Harnesses]:
    made: list[TunnelHarness] = []

    def make(**fields: Any) -> TunnelHarness:
        place = tmp_path / str(len(made))
        place.mkdir()
        made.append(TunnelHarness(place, **fields))
        return made[-1]

    yield make
    for harness in made:
        harness.close()
