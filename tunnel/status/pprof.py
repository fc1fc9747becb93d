"""Profiles of a running process, at the paths of Go's net/http/pprof.

Python has no pprof format: everything is text.
"""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

import trio

from tunnel.http.connection import NOT_FOUND, TEXT, Request, Response
from tunnel.status.stacks import StackSampler, encode_goroutines, encode_tree, task_stacks, thread_stacks

_ROOT = "/debug/pprof"
_SECONDS = 30.0  # Go's default
_MAX_SECONDS = 60.0
_TOP = 50

_INDEX = b"""<html><head><title>/debug/pprof/</title></head><body>
<p>Profiles of a Python process; all are text.</p>
<ul>
<li><a href="goroutine?debug=1">goroutine</a>: number of tasks, threads and connections, and their stacks
<li><a href="tasks">tasks</a>: the tree of tasks
<li><a href="threads">threads</a>: the stacks of threads
<li><a href="heap">heap</a>: objects by type; allocations by line with python -I -X tracemalloc -m tunnel
<li><a href="profile?seconds=10">profile</a>: stacks sampled by wall clock, folded for flame graph tools
<li><a href="cmdline">cmdline</a>: the command line without secrets
</ul></body></html>
"""

Profile = Callable[[Request], Awaitable[Response]]


class Pprof:
    """Responds to every path below /debug/pprof; `arguments` is the command line without secrets."""

    def __init__(self, arguments: Sequence[str], connections: Callable[[], int]) -> None:
        self._arguments = tuple(arguments)
        self._connections = connections
        self._is_sampling = False
        self._table: dict[str, Profile] = {
            "/": self._index,
            "/goroutine": self._goroutine,
            "/tasks": self._tasks,
            "/threads": self._threads,
            "/heap": self._heap,
            "/profile": self._profile,
            "/cmdline": self._cmdline,
        }

    async def __call__(self, request: Request) -> Response:
        """The profile of the request's path."""
        name = request.path.removeprefix(_ROOT)
        if not name:
            return Response(status=HTTPStatus.MOVED_PERMANENTLY, headers=(("Location", f"{_ROOT}/"),))
        profile = self._table.get(name)
        if profile is None:
            return NOT_FOUND
        return await profile(request)

    async def _index(self, _request: Request) -> Response:
        return Response(_INDEX, content_type="text/html; charset=utf-8")

    async def _goroutine(self, _request: Request) -> Response:
        return Response(encode_goroutines([*task_stacks(), *thread_stacks()], self._connections()))

    async def _tasks(self, _request: Request) -> Response:
        return Response(encode_tree())

    async def _threads(self, _request: Request) -> Response:
        return Response(encode_goroutines(thread_stacks(), 0).partition(b"\n")[2])

    async def _cmdline(self, _request: Request) -> Response:
        return Response("\0".join(self._arguments).encode("utf-8", "backslashreplace"), content_type=TEXT)

    async def _heap(self, _request: Request) -> Response:
        traced = await trio.to_thread.run_sync(_traced_lines) if tracemalloc.is_tracing() else []
        return Response("\n".join([*_object_lines(), *traced, ""]).encode("ascii", "backslashreplace"))

    async def _profile(self, request: Request) -> Response:
        seconds = parse_seconds(request.query_value("seconds"))
        if seconds is None:
            return Response(f"invalid seconds; expected a number up to {_MAX_SECONDS:g}\n".encode(), HTTPStatus.BAD_REQUEST)
        if self._is_sampling:
            return Response(b"another profile is in progress\n", HTTPStatus.INTERNAL_SERVER_ERROR)
        self._is_sampling = True
        sampler = StackSampler()
        try:
            return Response(await trio.to_thread.run_sync(sampler.run, seconds, abandon_on_cancel=True))
        finally:
            sampler.stop()
            self._is_sampling = False


def parse_seconds(text: str) -> float | None:
    """The time to sample, at most the maximum; None for an invalid number."""
    try:
        seconds = float(text or _SECONDS)
    except ValueError:
        return None
    return min(seconds, _MAX_SECONDS) if math.isfinite(seconds) and seconds > 0 else None


def _object_lines() -> list[str]:
    counts = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    head = f"objects tracked by the garbage collector: {counts.total()}, and {gc.get_freeze_count()} frozen at start"
    return [head, *(f"{count:>10} {name}" for name, count in counts.most_common(_TOP))]


def _traced_lines() -> list[str]:
    size, peak = tracemalloc.get_traced_memory()
    statistics = tracemalloc.take_snapshot().statistics("lineno")
    top = (f"{one.size:>10} {one.count:>8} {one.traceback[0].filename}:{one.traceback[0].lineno}" for one in statistics[:_TOP])
    return ["", f"traced memory in bytes: {size}, peak {peak}", *top]
