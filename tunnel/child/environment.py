"""The environment of a command: the one that this process was started with, without what is ours alone."""

from __future__ import annotations

from collections.abc import Mapping

from tunnel.child.inherited import inherited
from tunnel.cli.variables import MANAGER, SECRETS, SOCKETS

_OURS = frozenset({*SOCKETS, *MANAGER, *SECRETS})


def for_command(extra: Mapping[str, str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that we were `given`, without what is about this process, and with `extra`."""
    environ = inherited().environ if given is None else given
    return {name: value for name, value in environ.items() if name not in _OURS} | dict(extra)
