"""Profiles show tasks, threads and connections, fall back to their start values, and have no secrets."""

from __future__ import annotations

import re
import threading
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.status_port_client import run
from tunnel.http.connection import Request, Response
from tunnel.status.pprof import Pprof, parse_seconds
from tunnel.status.stacks import StackSampler, encode_goroutines, task_stacks, thread_stacks

SECRET = "hunter2"


async def ask(pprof: Pprof, name: str) -> Response:
    where, _, query = f"/debug/pprof{name}".partition("?")
    return await pprof(Request("GET", where, query))


def total(body: bytes) -> int:
    """What a leak watcher reads."""
    match = re.match(rb"goroutine profile: total (\d+)\n", body)
    assert match
    return int(match[1])


def on_trio(test: Callable[[Pprof], Awaitable[None]], connections: Callable[[], int] = lambda: 0) -> None:
    async def with_pprof() -> None:
        await test(Pprof(["tunnel", "--storepass=***"], connections))

    run(with_pprof)


def test_the_total_counts_tasks_threads_and_connections_and_falls_back() -> None:
    held = [0]

    async def watch(pprof: Pprof) -> None:
        async def count() -> int:
            return total((await ask(pprof, "/goroutine?debug=1")).body)

        start = await count()
        async with trio.open_nursery() as nursery:
            for _ in range(7):
                nursery.start_soon(trio.sleep_forever)
            await wait_all_tasks_blocked()
            assert await count() == start + 7
            nursery.cancel_scope.cancel()
        held[0] = 5
        assert await count() == start + 5
        held[0] = 0
        go_on = threading.Event()
        thread = threading.Thread(target=go_on.wait)
        thread.start()
        assert await count() == start + 1
        go_on.set()
        thread.join()
        assert await count() == start
        await trio.to_thread.run_sync(int)
        assert await count() == start  # trio keeps its worker for a while; that is no leak

    on_trio(watch, lambda: held[0])


def test_the_total_is_the_sum_of_what_is_listed() -> None:
    async def watch(pprof: Pprof) -> None:
        body = (await ask(pprof, "/goroutine?debug=1")).body
        assert total(body) == sum(map(int, re.findall(rb"^(\d+) @ ", body, re.MULTILINE)))
        assert b"3 @ connection\n" in body

    on_trio(watch, lambda: 3)


async def keep(secret: str) -> None:
    """A task with something to hide."""
    await trio.sleep_forever()
    print(secret)


def test_stacks_show_functions_and_never_values() -> None:
    async def watch(pprof: Pprof) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, SECRET)
            await wait_all_tasks_blocked()
            for name in ("/goroutine?debug=1", "/tasks", "/threads", "/heap", "/profile?seconds=0.1", "/", "/cmdline"):
                answer = await ask(pprof, name)
                assert answer.status == 200
                assert SECRET.encode() not in answer.body
                if name in ("/goroutine?debug=1", "/tasks"):
                    assert b"test_pprof.keep:" in answer.body
            nursery.cancel_scope.cancel()

    on_trio(watch)


def test_the_tree_shows_each_task_below_its_parent() -> None:
    async def watch(pprof: Pprof) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, "")
            await wait_all_tasks_blocked()
            lines = (await ask(pprof, "/tasks")).body.decode().splitlines()
            (child,) = [line for line in lines if line.endswith("task test_pprof.keep")]
            (parent,) = [line for line in lines if line.endswith("task tests.support.status_port_client.run.<locals>.bounded")]
            assert len(child) - len(child.lstrip()) > len(parent) - len(parent.lstrip())
            nursery.cancel_scope.cancel()

    on_trio(watch)


def test_the_command_line_is_the_one_that_was_given() -> None:
    async def watch(pprof: Pprof) -> None:
        assert (await ask(pprof, "/cmdline")).body == b"tunnel\0--storepass=***"

    on_trio(watch)


def test_the_index_names_every_profile_and_each_of_them_is_there() -> None:
    async def watch(pprof: Pprof) -> None:
        index = (await ask(pprof, "/")).body.decode()
        names = re.findall(r'href="([a-z]+)', index)
        assert len(names) == 6
        for name in names:
            assert (await ask(pprof, f"/{name}?seconds=0.05")).status == 200
        for name in ("/trace", "/block", "/goroutine/", "/../x"):
            assert (await ask(pprof, name)).status == 404
        moved = await ask(pprof, "")
        assert (moved.status, moved.headers) == (301, (("Location", "/debug/pprof/"),))

    on_trio(watch)


def test_the_heap_is_counted_and_traced_if_that_is_on() -> None:
    async def watch(pprof: Pprof) -> None:
        body = (await ask(pprof, "/heap")).body
        assert re.search(rb"^ +\d+ builtins\.function$", body, re.MULTILINE)
        assert b"traced" not in body
        tracemalloc.start()
        try:
            assert b"traced memory in bytes: " in (await ask(pprof, "/heap")).body
        finally:
            tracemalloc.stop()

    on_trio(watch)


def spin(go_on: threading.Event) -> None:
    """Something to find in a profile."""
    while not go_on.is_set():
        sum(range(1000))


def test_a_profile_is_folded_stacks_with_counts() -> None:
    go_on = threading.Event()
    thread = threading.Thread(target=spin, args=(go_on,), name="busy;one")
    thread.start()
    try:
        lines = StackSampler().run(0.2).decode().splitlines()
    finally:
        go_on.set()
        thread.join()
    assert all(re.fullmatch(r"[^;]+(;[^;]+)* \d+", line) for line in lines)
    found = [line for line in lines if line.startswith("busy,one;threading:Thread._bootstrap;")]
    assert any(line.rpartition(" ")[0].endswith("test_pprof:spin") for line in found)
    assert sum(int(line.rpartition(" ")[2]) for line in found) <= 20
    assert not any("Sampler.run" in line for line in lines)


def test_one_profile_at_a_time_and_a_cancelled_one_makes_room() -> None:
    async def watch(pprof: Pprof) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, pprof, "/profile")
            await wait_all_tasks_blocked()
            assert (await ask(pprof, "/profile?seconds=0.01")).status == 500
            nursery.cancel_scope.cancel()
        assert (await ask(pprof, "/profile?seconds=0.01")).status == 200
        assert (await ask(pprof, "/profile?seconds=x")).status == 400

    on_trio(watch)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 30),
        ("5", 5),
        ("0.5", 0.5),
        ("1e9", 60),
        ("60", 60),
        ("0", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("x", None),
    ],
)
def test_seconds_are_bounded(text: str, seconds: float | None) -> None:
    assert parse_seconds(text) == seconds


def test_equal_stacks_are_counted_together() -> None:
    async def watch(_pprof: Pprof) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(keep, "")
            await wait_all_tasks_blocked()
            body = encode_goroutines([*task_stacks(), *thread_stacks()], 0)
            assert b"\n3 @ task test_pprof.keep\n#\ttrio." in body
            nursery.cancel_scope.cancel()

    on_trio(watch)
