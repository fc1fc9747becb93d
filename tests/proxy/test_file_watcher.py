"""A reload is requested once for each change of watched files, when they are stable; a clock that the test advances."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tunnel.proxy.file_watcher import sign_files, watch_files

_LIMIT = 60  # seconds for one comparison


class Watched:
    """A watcher, and how often it has requested a reload."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.paths = [str(place / "tunnel.toml")]
        self.requests = 0
        self.comparisons = 0
        self._clock = trio.testing.MockClock()
        self.write("tunnel.toml", "first")

    def write(self, name: str, text: str) -> None:
        (self.place / name).write_text(text)

    async def tick(self) -> int:
        """One second; the number of requests since the last call."""
        self._clock.jump(1)
        limit = time.monotonic() + _LIMIT
        await trio.lowlevel.checkpoint()
        while not 0 < trio.lowlevel.current_statistics().seconds_to_next_deadline < math.inf:  # it compares on a thread
            assert time.monotonic() < limit
            await trio.lowlevel.checkpoint()
        requests, self.requests = self.requests, 0
        return requests

    async def ticks(self, count: int) -> list[int]:
        return [await self.tick() for _ in range(count)]

    def run(self, script: Callable[[], Awaitable[object]]) -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                self.known = sign_files(self.paths)
                nursery.start_soon(watch_files, self._list, self._request, self.known)
                await trio.testing.wait_all_tasks_blocked()
                await script()
                nursery.cancel_scope.cancel()

        trio.run(main, clock=self._clock)

    def _list(self) -> list[str]:
        self.comparisons += 1
        return self.paths

    def _request(self) -> None:
        self.requests += 1


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_nothing_is_requested_while_nothing_changes_and_files_are_compared_once_per_second(watched: Watched) -> None:
    async def script() -> None:
        assert await watched.ticks(5) == [0] * 5
        assert watched.comparisons == 5

    watched.run(script)


def test_a_file_is_read_when_it_has_been_stable_for_a_second(watched: Watched) -> None:
    async def script() -> None:
        for text in ("half", "half and more", "half and more and the rest"):
            watched.write("tunnel.toml", text)
            assert await watched.tick() == 0
        assert await watched.ticks(3) == [1, 0, 0]

    watched.run(script)


def test_a_file_that_disappears_is_a_change_and_so_is_its_return(watched: Watched) -> None:
    async def script() -> None:
        (watched.place / "tunnel.toml").unlink()
        assert await watched.ticks(3) == [0, 1, 0]
        watched.write("tunnel.toml", "second")
        assert await watched.ticks(3) == [0, 1, 0]

    watched.run(script)


def test_a_file_that_is_replaced_while_it_is_compared_counts_once(watched: Watched) -> None:
    async def script() -> None:
        (watched.place / "tunnel.toml").unlink()
        assert await watched.tick() == 0
        watched.write("tunnel.toml", "second")
        assert await watched.ticks(3) == [0, 1, 0]

    watched.run(script)


def test_a_directory_is_watched_with_the_files_below_it(watched: Watched) -> None:
    """A policy may have files in directories of its directory."""
    (watched.place / "deep/deeper").mkdir(parents=True)
    (watched.place / ".hidden").mkdir()
    watched.paths = [str(watched.place)]

    async def script() -> None:
        for name in ("new.toml", "deep/data.json", "deep/deeper/x.rego"):
            watched.write(name, "1")
            assert await watched.ticks(3) == [0, 1, 0], name
        watched.write(".hidden/x", "1")
        assert await watched.ticks(3) == [0, 0, 0]

    watched.run(script)


def test_the_swap_of_a_symbolic_link_is_a_change(watched: Watched) -> None:
    """Kubernetes replaces ..data, to whose files the names in the directory are links."""
    for version in ("..1", "..2"):
        (watched.place / version).mkdir()
        watched.write(f"{version}/tls.crt", "same size")
    (watched.place / "..data").symlink_to("..1")
    (watched.place / "tls.crt").symlink_to("..data/tls.crt")
    watched.paths = [str(watched.place / "tls.crt")]

    async def script() -> None:
        (watched.place / "..new").symlink_to("..2")
        (watched.place / "..new").rename(watched.place / "..data")
        assert await watched.ticks(3) == [0, 1, 0]

    watched.run(script)


def test_a_file_that_can_be_read_from_now_on_is_a_change(watched: Watched) -> None:
    file = watched.place / "tunnel.toml"
    file.chmod(0)

    async def script() -> None:
        file.chmod(0o444)
        assert await watched.ticks(3) == [0, 1, 0]

    watched.run(script)


def test_a_file_that_the_configuration_names_from_now_on_is_watched(watched: Watched) -> None:
    async def script() -> None:
        watched.write("key.pem", "first")
        watched.paths.append(str(watched.place / "key.pem"))
        assert await watched.ticks(3) == [0, 0, 0]
        watched.write("key.pem", "second")
        assert await watched.ticks(3) == [0, 1, 0]

    watched.run(script)


def test_a_file_that_changes_between_its_first_reading_and_its_first_comparison_is_a_change(watched: Watched) -> None:
    async def script() -> None:
        key = str(watched.place / "key.pem")
        watched.write("key.pem", "first")
        watched.known.update(sign_files([key]))
        watched.write("key.pem", "second")
        watched.paths.append(key)
        assert await watched.ticks(4) == [0, 1, 0, 0]

    watched.run(script)
