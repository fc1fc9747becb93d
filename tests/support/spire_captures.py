"""Captured messages of SPIRE agents, in `vectors/workload-api`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1] / "vectors" / "workload-api"
INDEX: dict[str, dict[str, Any]] = json.loads((HERE / "index.json").read_text())
DAY = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)  # every scene but `rotation` is valid then


def message(name: str) -> bytes:
    """The bytes of one message, by `scenario/call/number` with or without `.bin`."""
    return (HERE / name).with_suffix(".bin").read_bytes()


def call(name: str) -> dict[str, Any]:
    """The record of one call, by `scenario/call`."""
    known: dict[str, Any] = json.loads((HERE / name / "call.json").read_text())
    return known


def of(rpc: str) -> list[str]:
    """The names of all messages of one call."""
    return [name for name, entry in INDEX.items() if entry["rpc"] == rpc]
