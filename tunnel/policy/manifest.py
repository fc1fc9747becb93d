"""The `.manifest` of a bundle: its roots, and the Rego version of each module."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from tunnel.errors import PolicyError, PolicyFault
from tunnel.lazy_dataclass import dataclass
from tunnel.log import escape
from tunnel.policy.bundle_files import parse_json

MANIFEST = ".manifest"
_VERSIONS = (0, 1)
_DEFAULT = 1  # OPA 1.0 and later
_GLOB = re.compile(r"\*\*|\*|\?|[^*?]+")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The roots of a bundle in the data document, and the Rego versions of its modules."""

    roots: tuple[tuple[str, ...], ...]
    version: int
    file_versions: tuple[tuple[re.Pattern[str], int], ...]

    def version_of(self, name: str) -> int:
        """Return the Rego version of a module."""
        return next((version for glob, version in self.file_versions if glob.fullmatch(f"/{name}")), self.version)

    def owns(self, path: tuple[str, ...]) -> bool:
        """Whether a path of the data document is below a root."""
        return any(path[: len(root)] == root for root in self.roots)


def parse_manifest(content: bytes) -> Manifest:
    """Parse a manifest; raises PolicyError."""
    fields = parse_json(MANIFEST, content)
    if not isinstance(fields, dict):
        _refuse("expected an object")
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
        _refuse("roots is not a list of strings")
    return tuple(tuple(part for part in root.split("/") if part) for root in value)


def _version(value: Any) -> int:
    if isinstance(value, bool) or value not in _VERSIONS:
        _refuse(f"invalid Rego version {escape(json.dumps(value))}; expected 0 or 1")
    return int(value)


def _glob(text: str) -> re.Pattern[str]:
    """Compile a glob in which `*` does not match a slash and `**` does."""
    wild = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = "".join(wild.get(part) or re.escape(part) for part in _GLOB.findall(text))
    return re.compile(parts if text.startswith("/") else f"/{parts}", re.DOTALL)


def _refuse(message: str) -> NoReturn:
    raise PolicyError(PolicyFault.UNREADABLE, f".manifest: {message}")
