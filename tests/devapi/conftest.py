"""Fixtures of the tests of the development Workload API."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

SCENES = Path(__file__).parents[1] / "vectors" / "workload-api"


@pytest.fixture
def now() -> datetime:
    """A fixed time; authorities and issuing state read no clock."""
    return datetime(2026, 11, 22, 1, 7, 3, tzinfo=UTC)


@pytest.fixture
def captured() -> Callable[[str], bytes]:
    """The bytes of a captured message, by `scenario/call/number`."""
    return lambda name: (SCENES / f"{name}.bin").read_bytes()


@pytest.fixture
def captured_status() -> Callable[[str], tuple[str, str]]:
    """Code and text of a captured status, by `scenario/call`."""

    def read(name: str) -> tuple[str, str]:
        call: dict[str, Any] = json.loads((SCENES / name / "call.json").read_text())
        return call["status"]["code"], call["status"]["details"]

    return read
