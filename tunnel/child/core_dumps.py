"""No core dump of this process: it may hold keys. A command that it starts gets the limit that it was itself given."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tunnel.child.inherited import inherited
from tunnel.child.kernel import SET_DUMPABLE, prctl


def forbid_core_dumps() -> None:
    """Let the kernel write no core dump, and no process of the same user trace this one or read its memory (prctl(2)).

    A program named in core_pattern ignores the limit, so both are set. To be called after `inherited`, which reads a file
    in /proc/self that then belongs to root.
    """
    limit_core(0)
    with suppress(OSError):  # a seccomp filter
        prctl(SET_DUMPABLE, 0)


@contextmanager
def inherited_core_limit() -> Iterator[None]:
    """Start processes with the limit that this process was given; it still writes no core dump itself."""
    limit_core(inherited().core_limit)
    try:
        yield
    finally:
        limit_core(0)


def limit_core(soft: int) -> None:
    """Set the soft limit of core dumps; the hard one stays, or no child could raise its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
