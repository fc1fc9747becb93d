"""Where every task and every thread stands, by names of functions.

Knows the frames of trio's tasks and of threads; must not know HTTP. It shows modules, functions and lines and never a
variable or a source line, so no secret is in it and no file is opened for it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType

import trio

_IDLE_WORKER = "Trio thread "  # a worker thread that trio keeps for a while; one at work has another name, and its task waits
_MAX_DEPTH = 200


@dataclass(frozen=True, slots=True)
class Stack:
    """One task's or thread's name and its calls, the innermost first."""

    name: str
    calls: tuple[str, ...]


def task_stacks() -> list[Stack]:
    """Every task of trio's run but those of trio itself."""
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
    """Every thread that runs Python, but workers without work: they come and go."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = ((names.get(ident) or "foreign thread", frame) for ident, frame in sys._current_frames().items())
    return [Stack(name, tuple(_walk_thread(frame))) for name, frame in found if not name.startswith(_IDLE_WORKER)]


def encode_goroutines(stacks: Iterable[Stack], connections: int) -> bytes:
    """Go's text form: the total, then each different stack with how many stand there.

    The total counts an open connection like a task, since that is what leaks where connections are no tasks.
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


def describe_frame(frame: FrameType) -> str:
    """`module.Class.function:line`."""
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}:{frame.f_lineno}"


def _task_stack(task: trio.lowlevel.Task) -> Stack:
    frames = [describe_frame(frame) for frame, _line in task.iter_await_frames()]
    return Stack(f"task {task.name}", tuple(reversed(frames[-_MAX_DEPTH:])))


def _walk_thread(frame: FrameType) -> Iterator[str]:
    walked: FrameType | None = frame
    for _ in range(_MAX_DEPTH):
        if walked is None:
            return
        yield describe_frame(walked)
        walked = walked.f_back
