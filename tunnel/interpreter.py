"""Helper processes: a fresh interpreter that runs a function of this program and obeys no environment variable."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[1])  # where the package is, perhaps a source checkout that is not installed


def isolated_argv(function: str, *words: str, has_site: bool = True) -> list[str]:
    """The command line that calls `MODULE:FUNCTION` with `words` as arguments, and finds modules where this process does.

    Without `has_site` it starts sooner, and finds the standard library and this package only.
    """
    module, _, name = function.partition(":")
    search = f"sys.path[:] = {[*filter(None, sys.path), _ROOT]!a}" if has_site else f"sys.path.append({_ROOT!a})"
    program = f"import sys; sys.argv[0] = 'tunnel'; {search}; from {module} import {name} as run; sys.exit(run())"
    return [sys.executable, "-I", *(() if has_site else ("-S",)), "-c", program, *words]
