"""A log that records its lines."""

from __future__ import annotations

from typing import Any

from tunnel.log import Log


class RecordedLog(Log):
    """Records each line instead of writing it."""

    def __init__(self) -> None:
        super().__init__(schedule=lambda _delay: None)
        self.kept: list[str] = []

    def write(self, message: str, *_category: Any, fields: str = "", **_more: Any) -> None:
        self.kept.append(f"{message} {fields}".rstrip() if fields else message)
