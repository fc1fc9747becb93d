"""The environment that another program is given: the one that we were given, without what is ours alone.

Knows which variables are the proxy's own; must not know what the program is.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from tunnel.child.inherited import inherited
from tunnel.config.variables import MANAGER, SECRETS, SOCKETS

_OURS = frozenset({*SOCKETS, *MANAGER, *SECRETS})
# The interpreter sets the one where there is no locale (PEP 538), our client of the Workload API the other.
_ADDED = frozenset({"LC_CTYPE", "GRPC_VERBOSITY"})


def for_command(environ: Mapping[str, str], extra: Mapping[str, str], given: Collection[bytes] | None = None) -> dict[str, str]:
    """`environ` with `extra`, and without what is about this process; `given` are the names that we were started with."""
    names = inherited().variables if given is None else given
    added = {name for name in _ADDED if os.fsencode(name) not in names}
    dropped = _OURS | added
    return {name: value for name, value in environ.items() if name not in dropped} | dict(extra)
