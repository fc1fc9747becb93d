"""Memory, tasks, threads and garbage collection of the process."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import trio

from tests.support.known_metrics import known_source
from tunnel.status import metric_definitions, runtime
from tunnel.status.runtime import Runtime
from tunnel.status.snapshot import open_metrics


def test_each_run_of_the_collector_is_timed_while_it_is_watched() -> None:
    moments = iter(range(0, 10_000_000, 5000))
    process = Runtime(clock=lambda: next(moments))
    next(moments)
    gc.disable()
    try:
        process.watch()
        gc.collect()
        gc.collect()
        process.unwatch()
        gc.collect()
    finally:
        gc.enable()
    seen = process.pauses.distribution()
    assert seen.sample.values == (5000, 5000)


def test_the_numbers_of_this_process_are_plausible() -> None:
    process = Runtime()
    assert 1_000_000 < (process.resident_bytes() or 0) < 10_000_000_000
    assert process.blocks() > 10_000
    before = process.collections()
    gc.collect()
    assert process.collections() > before


def test_trios_tasks_are_counted_when_there_are_some() -> None:
    process = Runtime()
    outside = process.tasks()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            fewer = process.tasks()
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            assert process.tasks() == fewer + 1
            nursery.cancel_scope.cancel()
        assert fewer > outside

    trio.run(main)


def test_what_may_not_be_looked_at_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source, _counters, _clock = known_source()
    monkeypatch.setattr(runtime, "_STATM", str(tmp_path / "missing"))
    source._runtime = Runtime()
    shown = {reading.metric for reading in source.snapshot().readings}
    assert metric_definitions.MEMORY not in shown
    assert metric_definitions.TASKS in shown


def test_an_open_source_watches_the_collector() -> None:
    source, _counters, _clock = known_source()
    source = open_metrics(source._measure, source.refresh)
    try:
        gc.collect()
        assert source._runtime.pauses.distribution().count >= 1
    finally:
        source._runtime.unwatch()
