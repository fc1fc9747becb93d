"""The command line of helper processes: a new interpreter that runs one function and ignores Python's environment variables."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[1])  # the directory of the package, possibly a source checkout


def isolated_argv(function: str, *arguments: str, has_site: bool = True) -> list[str]:
    """Return the command line that calls `MODULE:FUNCTION` with `arguments`, with the module search path of this process.

    Without `has_site` it starts faster, and only the standard library and this package can be imported.
    """
    module, _, name = function.partition(":")
    search = f"sys.path[:] = {[*filter(None, sys.path), _ROOT]!a}" if has_site else f"sys.path.append({_ROOT!a})"
    program = f"import sys; sys.argv[0] = 'tunnel'; {search}; from {module} import {name} as run; sys.exit(run())"
    return [sys.executable, "-I", *(() if has_site else ("-S",)), "-c", program, *arguments]
