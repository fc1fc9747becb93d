"""`tunnel config check`, `show` and `schema`: configuration files are read, and nothing is started."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tunnel.cli.command import Arguments, Command, Group, positionals, switch
from tunnel.cli.output import print_output
from tunnel.config.values import parse_name
from tunnel.errors import ConfigError
from tunnel.log import one_line

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.config.file.loader import LoadedConfig
    from tunnel.config.file.problem import Problem

FILES = positionals("FILE", "Configuration file, or a directory of *.toml files", parse_name)
JSON = switch("json", "Print one JSON object instead of lines")
FILES_TOO = switch("files", "Also read the certificates, keys, revocation lists and policies that the configuration names")

CHECK = Command(
    "config check",
    "Check configuration files, and report every mistake with its file and line.",
    (Group("Check", (FILES_TOO,)), Group("Report", (JSON,))),
    """\
All files together are one configuration, as for 'tunnel serve'. Mistakes and warnings go to
standard error, one per line: FILE:LINE: KEY: PROBLEM. Certificates and other files that the
configuration names are read with --files only, except the file of a keystore's password; the
network is not used. Exit code: 0 if there is no mistake, else 1; warnings do not count.

Examples:
  tunnel config check tunnel.toml
  tunnel config check --files /etc/tunnel/
""",
    (FILES,),
)
SHOW = Command(
    "config show",
    "Print the effective configuration of these files as one file, with all defaults.",
    (),
    """\
Passwords are replaced by (hidden). Named access lists and [defaults] are written where they are
used. Without passwords in it, the output is a configuration file with the same effect.

Examples:
  tunnel config show tunnel.toml
  tunnel config show /etc/tunnel/ other.toml
""",
    (FILES,),
)
SCHEMA = Command(
    "config schema",
    "Print the JSON Schema of configuration files (draft 2020-12), for editors.",
    (),
    """\
The schema accepts every valid configuration file. 'tunnel config check' checks more: addresses,
names that are referred to, and keys that exclude each other.

Examples:
  tunnel config schema > tunnel.schema.json
""",
)
COMMANDS = (CHECK, SHOW, SCHEMA)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print what the command is for; the exit code. Raises ConfigError for a line without a file."""
    if command is SCHEMA:
        return _print_schema()
    files: tuple[str, ...] = arguments[FILES]
    if not files:
        raise ConfigError("FILE is required; expected a configuration file or a directory")
    if command is not CHECK:
        return _show(files)
    errors, warnings, summary = _examine(files, environ if arguments[FILES_TOO] else None)
    _report(errors, warnings, summary, is_json=arguments[JSON])
    return 1 if errors else 0


def print_problems(problems: Iterable[Problem], mark: str = "") -> None:
    """Write mistakes or warnings to standard error, each as one line."""
    for problem in problems:
        sys.stderr.write(one_line(problem.describe(mark)) + "\n")
    sys.stderr.flush()


def _examine(files: tuple[str, ...], environ: Mapping[str, str] | None) -> tuple[Sequence[Problem], Sequence[Problem], str]:
    """Errors, warnings, and the summary if there are no errors; with an environment, files that are named are read too."""
    from tunnel.config.file.loader import load_files
    from tunnel.config.file.problem import ConfigFileError

    try:
        loaded = load_files(files)
    except ConfigFileError as error:
        return error.problems, error.warnings, ""
    if environ is None:
        return (), loaded.warnings, _summarize(loaded, len(loaded.warnings))
    errors, warnings = _read_named_files(loaded, environ)
    warnings = [*loaded.warnings, *warnings]
    return errors, warnings, _summarize(loaded, len(warnings))


def _read_named_files(loaded: LoadedConfig, environ: Mapping[str, str]) -> tuple[list[Problem], list[Problem]]:
    from tunnel.check.config_files import find_file_problems
    from tunnel.config.file.problem import Problem

    errors: list[Problem] = []
    warnings: list[Problem] = []
    for found in find_file_problems(loaded.config, environ, datetime.now(UTC)):
        (warnings if found.is_warning else errors).append(Problem("", 0, found.key, found.text))
    return errors, warnings


def _report(errors: Sequence[Problem], warnings: Sequence[Problem], summary: str, *, is_json: bool) -> None:
    if is_json:
        print_output(_encode_report(errors, warnings))
        return
    print_problems(errors)
    print_problems(warnings, "warning")
    if not errors:
        print_output(f"{summary}\n")


def _show(files: tuple[str, ...]) -> int:
    from tunnel.config.file.encode import Style, encode_config
    from tunnel.config.file.loader import load_files
    from tunnel.config.file.problem import ConfigFileError

    try:
        loaded = load_files(files)
    except ConfigFileError as error:
        print_problems(error.problems)
        return 1
    print_output(encode_config(loaded.config, Style(is_complete=True)))
    return 0


def _print_schema() -> int:
    from tunnel.config.file.json_schema import build_json_schema

    print_output(json.dumps(build_json_schema(), indent=2, ensure_ascii=False) + "\n")
    return 0


def _summarize(loaded: LoadedConfig, warnings: int) -> str:
    """`ok: 1 file, 2 servers, 1 client, 1 identity, no warnings`."""
    modes = Counter(listener.mode for listener in loaded.config.listeners)
    identities = len({listener.identity for listener in loaded.config.listeners})
    counts = [
        _count(len(loaded.files), "file"),
        *(_count(modes[mode], mode) for mode in ("server", "client") if modes[mode]),
        _count(identities, "identity", "identities"),
        _count(warnings, "warning"),
    ]
    return f"ok: {', '.join(counts)}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _encode_report(errors: Sequence[Problem], warnings: Sequence[Problem]) -> str:
    report = {
        "ok": not errors,
        "errors": [_encode(one) for one in errors],
        "warnings": [_encode(one) for one in warnings],
    }
    return json.dumps(report, indent=2) + "\n"


def _encode(problem: Problem) -> dict[str, object]:
    column = {"column": problem.column} if problem.column else {}
    return {"file": problem.file or None, "line": problem.line or None, **column, "key": problem.key, "problem": problem.text}
