"""The files of a bundle, read from a directory or a tar.gz with limits on size and number.

Names are relative to the root, without `.` and `..`. Links in an archive are ignored; in a directory a link to a file is
followed, because Kubernetes mounts files that way.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from tunnel.errors import PolicyError, PolicyFault
from tunnel.log import escape

MAX_BYTES = 16 * 1024 * 1024  # of all files together; the engine needs many times as much memory
MAX_FILES = 10_000
_READ_HIDDEN = (".manifest", ".signatures.json")


def read_archive(packed: bytes) -> dict[str, bytes]:
    """Return the regular files of a tar.gz by name; raises PolicyError."""
    members: dict[str, bytes] = {}
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as unpacked:
            content = unpacked.read(MAX_BYTES + 1)
        _check_size(len(content))
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for count, member in enumerate(archive):
                _check_count(count)
                file = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                if file is not None:
                    _add(members, member.name, file.read())
    # tarfile raises any of these for a broken header.
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError, RecursionError) as error:
        raise PolicyError(PolicyFault.UNREADABLE, f"not a tar.gz bundle: {type(error).__name__}") from None
    return members


def read_directory(path: str) -> dict[str, bytes]:
    """Return the files below a directory, except hidden ones; raises OSError or PolicyError."""
    members: dict[str, bytes] = {}
    size = 0
    for place, directories, files in os.walk(path, onerror=_raise):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in files:
            file = Path(place, name)
            if (name.startswith(".") and name not in _READ_HIDDEN) or not file.is_file():
                continue
            _check_count(len(members))
            size += file.stat().st_size
            _check_size(size)
            _add(members, str(file.relative_to(path)), file.read_bytes())
    return members


def parse_json(name: str, content: bytes) -> Any:
    """Parse a JSON file of a bundle; raises PolicyError."""
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise PolicyError(PolicyFault.UNREADABLE, f"{escape(name)}: not JSON: {escape(str(error))}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _raise(error: OSError) -> None:
    raise error


def _add(members: dict[str, bytes], name: str, content: bytes) -> None:
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "//", ".")]
    relative = "/".join(parts)
    if ".." in parts:
        raise PolicyError(PolicyFault.UNREADABLE, f"{escape(name)}: path outside the bundle")
    if relative in members:
        raise PolicyError(PolicyFault.UNREADABLE, f"{escape(relative)}: duplicate file")
    members[relative] = content


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise PolicyError(PolicyFault.OVER_LIMIT, f"more than {MAX_BYTES >> 20} MiB when unpacked")


def _check_count(count: int) -> None:
    if count >= MAX_FILES:
        raise PolicyError(PolicyFault.OVER_LIMIT, f"more than {MAX_FILES} files")
