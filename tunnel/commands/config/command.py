"""`tunnel config check`, `show` and `schema`: configuration files are read, and nothing is started."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, MutableMapping
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

CHECK = Command(
    "config check",
    "Check configuration files, and report every mistake with its file and line.",
    (Group("Report", (JSON,)),),
    """\
All files together are one configuration, as for 'tunnel serve'. Mistakes and warnings go to
standard error, one per line: FILE:LINE: KEY: PROBLEM. Certificates and other files that the
configuration names are not read, except the file of a keystore's password; the network is not used.
Exit code: 0 if there is no mistake, else 1; warnings do not count.

Examples:
  tunnel config check tunnel.toml
  tunnel config check --json /etc/tunnel/
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
    return _check(files, is_json=arguments[JSON]) if command is CHECK else _show(files)


def print_problems(problems: Iterable[Problem], mark: str = "") -> None:
    """Write mistakes or warnings to standard error, each as one line."""
    for problem in problems:
        sys.stderr.write(one_line(problem.describe(mark)) + "\n")
    sys.stderr.flush()


def _check(files: tuple[str, ...], *, is_json: bool) -> int:
    from tunnel.config.file.loader import load_files
    from tunnel.config.file.problem import ConfigFileError

    try:
        loaded = load_files(files)
    except ConfigFileError as error:
        if is_json:
            print_output(_encode_report(error.problems, error.warnings))
        else:
            print_problems(error.problems)
            print_problems(error.warnings, "warning")
        return 1
    if is_json:
        print_output(_encode_report((), loaded.warnings))
    else:
        print_problems(loaded.warnings, "warning")
        print_output(f"{_summarize(loaded)}\n")
    return 0


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


def _summarize(loaded: LoadedConfig) -> str:
    """`ok: 1 file, 2 servers, 1 client, 1 identity, no warnings`."""
    modes = Counter(listener.mode for listener in loaded.config.listeners)
    identities = len({listener.identity for listener in loaded.config.listeners})
    counts = [
        _count(len(loaded.files), "file"),
        *(_count(modes[mode], mode) for mode in ("server", "client") if modes[mode]),
        _count(identities, "identity", "identities"),
        _count(len(loaded.warnings), "warning"),
    ]
    return f"ok: {', '.join(counts)}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _encode_report(errors: Iterable[Problem], warnings: Iterable[Problem]) -> str:
    report = {
        "ok": not list(errors),
        "errors": [_encode(one) for one in errors],
        "warnings": [_encode(one) for one in warnings],
    }
    return json.dumps(report, indent=2) + "\n"


def _encode(problem: Problem) -> dict[str, object]:
    column = {"column": problem.column} if problem.column else {}
    return {"file": problem.file, "line": problem.line or None, **column, "key": problem.key, "problem": problem.text}
