"""What the machine gives a proxy: descriptors and confinement.

Knows limits and Landlock; must not know what a proxy does with them.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator

from tunnel.check.finding import Finding, ok, warning
from tunnel.errors import describe_os_error
from tunnel.sandbox.landlock import FIRST_WITH_SCOPES, Linux

_FEW = 1024  # descriptors
_FIRST_WITH_NET = 4


def examine_machine(*, is_confined: bool) -> Iterator[Finding]:
    """How many connections there may be, and whether the kernel keeps the process to its files and ports."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    seen = f"{hard} descriptors, two for each connection"
    if hard < _FEW:
        yield warning("descriptors", seen, "raise it where the process is started (LimitNOFILE=, ulimit -Hn)")
    else:
        yield ok("descriptors", seen)
    yield _examine_landlock(is_confined=is_confined)


def _examine_landlock(*, is_confined: bool) -> Finding:
    if not is_confined:
        return ok("landlock", "switched off by --disable-landlock")
    try:
        version = Linux().version()
    except OSError as error:
        return warning(
            "landlock", f"not to be had: {describe_os_error(error)}", "the proxy runs without this confinement and logs that"
        )
    scope = "files and ports" if version >= _FIRST_WITH_NET else "files, not ports: the kernel is too old for that"
    more = " and from other processes" if version >= FIRST_WITH_SCOPES else ""
    return ok("landlock", f"version {version}: keeps the process to its {scope}{more}")
