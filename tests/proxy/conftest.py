"""Fixtures of the proxy tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cert_factory import key_of, make_certificate
from tests.support.credential_files import ROOT, Files
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


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.write(make_certificate(issuer=ROOT, subject="one", key=key_of("p256", 30)))
    return made
