"""The flags that `tunnel connect` and `tunnel exec` share: those of a client without a listener of its own."""

from __future__ import annotations

from typing import Any

from tunnel.cli.command import Arguments, Flag, Group, switch
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy import limits, source, tls
from tunnel.commands.proxy.access import VERIFY

VERBOSE = switch("verbose", "Log to standard error: our identity, the server's, and the bytes sent and received", short="v")

_REPLACED = {source.API_TIMEOUT: source.WAIT}
IDENTITY = Group(
    "Identity and trust: exactly one identity source is required",
    (*(_REPLACED.get(flag, flag) for flag in source.FLAGS if flag is not source.TIMED_RELOAD), VERIFY.disable),
)
LIMITS = Group("Limits", (limits.CONNECT_TIMEOUT, limits.CLOSE_TIMEOUT, *tls.FLAGS))
PROCESS = Group("Process", (VERBOSE, limits.DISABLE_LANDLOCK))


def as_client(arguments: Arguments, changes: dict[Flag[Any], Any] | None = None) -> Arguments:
    """The arguments of the equivalent line of `tunnel client`."""
    return arguments.amended({source.API_TIMEOUT: arguments[source.WAIT], **(changes or {})}, proxy.CLIENT.flags)
