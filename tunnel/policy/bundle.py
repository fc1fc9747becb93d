"""A policy source: one `.rego` file, or an OPA bundle in a directory or a tar.gz, which is never unpacked to disk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from tunnel.errors import PolicyError, PolicyFault, describe_os_error
from tunnel.lazy_dataclass import dataclass
from tunnel.log import escape
from tunnel.policy.bundle_files import MAX_BYTES, parse_json, read_archive, read_directory
from tunnel.policy.manifest import MANIFEST, Manifest, parse_manifest
from tunnel.policy.rego_v0 import find_partial_sets, is_v1, to_v1

_SIGNATURES = ".signatures.json"
_PACKAGE = re.compile(r"^\s*package\s+([A-Za-z_][\w.]*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Module:
    """One source file in Rego v1, and the version that it was written in."""

    name: str
    text: str
    version: int


@dataclass(frozen=True, slots=True)
class PolicySource:
    """The modules that are compiled together, and the data document in JSON."""

    modules: tuple[Module, ...]
    data: str = "{}"


def load_policy(path: str) -> PolicySource:
    """Load a `.rego` file, in Rego v0, or else a bundle, in v1 unless its manifest sets v0; raises PolicyError."""
    try:
        if path.endswith(".rego"):
            return PolicySource((_module(Path(path).name, _read_file(path), 0),))
        is_directory = Path(path).is_dir()
        return parse_bundle(read_directory(path) if is_directory else read_archive(_read_file(path)))
    except OSError as error:
        raise PolicyError(PolicyFault.UNREADABLE, f"{path}: {describe_os_error(error)}") from error
    except PolicyError as error:
        raise PolicyError(error.reason, f"{path}: {error}") from error.__cause__


def parse_bundle(members: Mapping[str, bytes]) -> PolicySource:
    """Parse the files of a bundle, given by their names relative to its root; raises PolicyError."""
    if _SIGNATURES in members:
        _refuse("the bundle is signed, but signatures cannot be verified; build it without a signature")
    manifest = parse_manifest(members.get(MANIFEST, b"{}"))
    modules = []
    data: dict[str, Any] = {}
    for name, content in sorted(members.items()):
        path = PurePosixPath(name)
        if path.suffix == ".rego":
            module = _module(name, content, manifest.version_of(name))
            _check_root(module, manifest)
            modules.append(module)
        elif path.name == "data.json":
            _merge(data, path.parent.parts, parse_json(name, content), name, manifest)
        elif path.name in ("data.yaml", "data.yml"):
            _refuse(f"{escape(name)}: unsupported; convert it to data.json")
        elif name == "patch.json":
            _refuse("this is a delta bundle; expected a snapshot bundle")
    if not modules:
        _refuse("the bundle has no .rego file")
    return PolicySource(tuple(modules), _encode_data(data))


def _encode_data(data: Any) -> str:
    try:
        return json.dumps(data, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise PolicyError(PolicyFault.UNREADABLE, f"data.json: {error}") from error


def _read_file(path: str) -> bytes:
    with Path(path).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PolicyError(PolicyFault.OVER_LIMIT, f"more than {MAX_BYTES >> 20} MiB")
    return content


def _module(name: str, content: bytes, version: int) -> Module:
    shown = escape(name)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyError(PolicyFault.UNREADABLE, f"{shown}: not UTF-8: {error.reason}") from error
    if "\0" in text:  # the engine stops reading there
        _refuse(f"{shown}: contains a NUL character")
    if version == 0 and not is_v1(text):
        return Module(shown, to_v1(text), 0)
    for found in find_partial_sets(text):
        head = f"{found.name}[...]"
        _refuse(
            f"{shown}:{found.line}: {head} is a set only in Rego v0, but this module is v1; write {found.name} contains ... if"
        )
    return Module(shown, text, 1)


def _check_root(module: Module, manifest: Manifest) -> None:
    match = _PACKAGE.search(module.text)
    if match and not manifest.owns(tuple(match.group(1).split("."))):
        _refuse(f"{module.name}: package {match.group(1)} is not under a root of the manifest")


def _merge(data: dict[str, Any], path: tuple[str, ...], value: Any, name: str, manifest: Manifest) -> None:
    """Merge a value into the data document at its path; two objects are merged, any other conflict is an error."""
    shown = escape(name)
    for part in reversed(path):
        value = {part: value}
    if not isinstance(value, dict):
        _refuse(f"{shown}: expected an object at the root")
    for found in _paths_to_leaves(value):
        if not manifest.owns(found):
            _refuse(f"{shown}: {escape('/'.join(found))} is not under a root of the manifest")
    _join(data, value, lambda: _refuse(f"{shown}: conflicts with another data.json"))


def _paths_to_leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, dict) and value and len(path) < 32:
        return [found for key, inner in value.items() for found in _paths_to_leaves(inner, (*path, key))]
    return [path] if path else []


def _join(target: dict[str, Any], value: dict[str, Any], refuse: Callable[[], NoReturn]) -> None:
    for key, inner in value.items():
        if key not in target:
            target[key] = inner
        elif isinstance(target[key], dict) and isinstance(inner, dict):
            _join(target[key], inner, refuse)
        else:
            refuse()


def _refuse(message: str) -> NoReturn:
    raise PolicyError(PolicyFault.UNREADABLE, message)
