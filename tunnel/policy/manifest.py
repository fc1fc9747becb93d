"""The file `.manifest` of a bundle.

Knows the roots and the versions of Rego that it can name; must not know where it was found.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from tunnel.errors import PolicyError, PolicyFault
from tunnel.log import escape

MANIFEST = ".manifest"
_VERSIONS = (0, 1)
_DEFAULT = 1  # OPA 1.0 and later
_GLOB = re.compile(r"\*\*|\*|\?|[^*?]+")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle owns of the data tree, and how its modules are to be read."""

    roots: tuple[tuple[str, ...], ...]
    version: int
    file_versions: tuple[tuple[re.Pattern[str], int], ...]

    def version_of(self, name: str) -> int:
        """The version of Rego of the module with this name."""
        return next((version for glob, version in self.file_versions if glob.fullmatch(f"/{name}")), self.version)

    def owns(self, path: tuple[str, ...]) -> bool:
        """Whether something at a path of the data tree may come from this bundle."""
        return any(path[: len(root)] == root for root in self.roots)


def parse_manifest(content: bytes) -> Manifest:
    """A manifest; raises PolicyError."""
    try:
        fields = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise PolicyError(PolicyFault.UNREADABLE, f".manifest: not JSON: {escape(str(error))}") from error
    if not isinstance(fields, dict):
        _refuse("an object is wanted")
    versions = fields.get("file_rego_versions") or {}
    if not isinstance(versions, dict):
        _refuse("file_rego_versions is not an object")
    patterns = tuple((_glob(name), _version(version)) for name, version in versions.items())
    version = fields.get("rego_version")
    return Manifest(_roots(fields.get("roots")), _DEFAULT if version is None else _version(version), patterns)


def _roots(value: Any) -> tuple[tuple[str, ...], ...]:
    if value is None:
        return ((),)  # all of it
    if not isinstance(value, list) or not all(isinstance(root, str) for root in value):
        _refuse("roots is not a list of texts")
    return tuple(tuple(part for part in root.split("/") if part) for root in value)


def _version(value: Any) -> int:
    if isinstance(value, bool) or value not in _VERSIONS:
        _refuse(f"Rego version {escape(json.dumps(value))}, where 0 or 1 is wanted")
    return int(value)


def _glob(text: str) -> re.Pattern[str]:
    """A pattern in which a star stops at a slash and two do not."""
    wild = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = "".join(wild.get(part) or re.escape(part) for part in _GLOB.findall(text))
    return re.compile(parts if text.startswith("/") else f"/{parts}", re.DOTALL)


def _refuse(message: str) -> NoReturn:
    raise PolicyError(PolicyFault.UNREADABLE, f".manifest: {message}")
