"""The kernel's limit for the path or abstract name of a Unix socket (unix(7))."""

from __future__ import annotations

import os
import sys

from tunnel.errors import ConfigError

MAX_UNIX_PATH = 107  # bytes; sun_path has 108, and the last one is the final NUL of a path or the first NUL of a name


def check_unix_path(path: str) -> None:
    """Raise ConfigError for a path, or `@` and an abstract name, that is too long or cannot be encoded."""
    is_abstract = path.startswith("@")
    try:
        size = len(os.fsencode(path.removeprefix("@") if is_abstract else path))
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise ConfigError(f"path has a character outside the file-system encoding {encoding}") from None
    if size > MAX_UNIX_PATH:
        what = "socket name" if is_abstract else "socket path"
        raise ConfigError(f"{what} has {size} bytes; expected at most {MAX_UNIX_PATH}")
