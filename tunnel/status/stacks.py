"""Stacks of tasks and threads, listed once or sampled over time, by names of functions.

No variable, argument or source line is shown, so the output has no secret, and no file is opened for it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from types import FrameType

import trio

from tunnel.lazy_dataclass import dataclass

_IDLE_WORKER = "Trio thread "  # the name of a worker thread that trio keeps for later; a busy one has another name
_MAX_DEPTH = 200
_SAMPLE_INTERVAL = 0.01  # seconds


@dataclass(frozen=True, slots=True)
class Stack:
    """The name of a task or thread and its calls, the innermost first."""

    name: str
    calls: tuple[str, ...]


def task_stacks() -> list[Stack]:
    """The stack of every task of the trio run, except trio's own."""
    return [_task_stack(task) for _depth, task in walk_tasks()]


def walk_tasks() -> Iterator[tuple[int, trio.lowlevel.Task]]:
    """The tasks from the outermost inwards, each with its depth."""
    root = trio.lowlevel.current_root_task()
    waiting = [(0, root)] if root is not None else []
    while waiting:
        depth, task = waiting.pop()
        yield depth, task
        waiting += [(depth + 1, child) for nursery in task.child_nurseries for child in nursery.child_tasks]


def thread_stacks() -> list[Stack]:
    """The stack of every thread that runs Python, except idle workers, whose number varies."""
    return [
        Stack(name, tuple(_describe_frame(one) for one in _walk_frames(frame)))
        for _ident, name, frame in _threads()
        if not name.startswith(_IDLE_WORKER)
    ]


def encode_goroutines(stacks: Iterable[Stack], connections: int) -> bytes:
    """Go's text format: the total, then each different stack with its count.

    The total includes open connections: a leaked connection must show in it, and connections are not tasks here.
    """
    counted = Counter(stacks)
    lines = [f"goroutine profile: total {counted.total() + connections}"]
    if connections:
        lines += [f"{connections} @ connection", ""]
    for stack, count in counted.most_common():
        lines += [f"{count} @ {stack.name}", *(f"#\t{call}" for call in stack.calls), ""]
    return "\n".join(lines).encode("ascii", "backslashreplace") + b"\n"


def encode_tree() -> bytes:
    """The tasks, each indented below its parent."""
    lines = []
    for depth, task in walk_tasks():
        stack = _task_stack(task)
        lines += [f"{'    ' * depth}{stack.name}", *(f"{'    ' * depth}  {call}" for call in stack.calls)]
    return "\n".join(lines).encode("ascii", "backslashreplace") + b"\n"


class StackSampler:
    """A sampling profiler of all threads by wall clock, so that a thread that waits is counted too."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._counts: Counter[str] = Counter()

    def run(self, seconds: float) -> bytes:
        """Sample on the calling thread for this time; return the folded stacks of the others with counts, sorted."""
        own = threading.get_ident()
        for _ in range(int(seconds / _SAMPLE_INTERVAL)):
            if self._stopped.wait(_SAMPLE_INTERVAL):
                break
            self._counts.update(_fold(name, frame) for ident, name, frame in _threads() if ident != own)
        lines = (f"{stack} {count}\n" for stack, count in sorted(self._counts.items()))
        return "".join(lines).encode("ascii", "backslashreplace")

    def stop(self) -> None:
        """End `run` at its next sample."""
        self._stopped.set()


def _fold(name: str, frame: FrameType) -> str:
    """`thread;outermost;...;innermost`, each call as `module:function`: the input of flame graph tools."""
    calls = [f"{one.f_globals.get('__name__', '?')}:{one.f_code.co_qualname}" for one in _walk_frames(frame)]
    return ";".join(part.replace(";", ",") for part in (name, *reversed(calls)))


def _threads() -> Iterator[tuple[int, str, FrameType]]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield ident, names.get(ident) or "foreign thread", frame


def _task_stack(task: trio.lowlevel.Task) -> Stack:
    frames = [_describe_frame(frame) for frame, _line in task.iter_await_frames()]
    return Stack(f"task {task.name}", tuple(reversed(frames[-_MAX_DEPTH:])))


def _describe_frame(frame: FrameType) -> str:
    """`module.Class.function:line`."""
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}:{frame.f_lineno}"


def _walk_frames(frame: FrameType) -> Iterator[FrameType]:
    """The frame and its callers, up to the maximum depth."""

    def walk() -> Iterator[FrameType]:
        walked: FrameType | None = frame
        while walked is not None:
            yield walked
            walked = walked.f_back

    return islice(walk(), _MAX_DEPTH)
