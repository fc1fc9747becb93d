"""Fixtures of the relay tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.socket_pairs import Wire, Wires


@pytest.fixture
def wires() -> Iterator[Wires]:
    """Create relays, which are closed at the end, the newest first."""
    made: list[Wire] = []

    def make(*args: object, **fields: object) -> Wire:
        made.append(Wire(*args, **fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for wire in reversed(made):
        wire.close()
