"""The flags that `tunnel connect` and `tunnel exec` share: a client's, for one piece of work.

Knows which of a client's flags make sense there and what is different by default; must not know how any of it is carried
out.
"""

from __future__ import annotations

from typing import Any

from tunnel.cli.parser import Arguments, Flag, Group, switch
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy import source as sources
from tunnel.commands.proxy import tls
from tunnel.commands.proxy.access import VERIFY

VERBOSE = switch("verbose", "Say on standard error who we are, who answered and what was carried.", short="v")

_VARIANTS = {sources.API_TIMEOUT: sources.WAIT}
IDENTITY = Group(
    "Identity and trust: one source",
    (*(_VARIANTS.get(flag, flag) for flag in sources.FLAGS if flag is not sources.TIMED_RELOAD), VERIFY.disable),
)
LIMITS = Group("Limits", (proxy.CONNECT_TIMEOUT, proxy.CLOSE_TIMEOUT, *tls.FLAGS))


def as_client(arguments: Arguments, changes: dict[Flag[Any], Any] | None = None) -> Arguments:
    """What a line of `tunnel client` would say."""
    return arguments.amended({sources.API_TIMEOUT: arguments[sources.WAIT], **(changes or {})}, proxy.CLIENT.flags)
