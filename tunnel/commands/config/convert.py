"""`tunnel config convert`: a configuration file from command lines, or from a configuration of stunnel."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

from tunnel.cli.command import Arguments, Command, Group, option
from tunnel.cli.output import print_message, print_output
from tunnel.cli.parser import parse_command_line
from tunnel.commands.config.command import print_problems
from tunnel.commands.proxy import command as proxy
from tunnel.config.model import Keystore, ProcessConfig
from tunnel.config.values import parse_text
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import replace

STUNNEL = option("from-stunnel", "Convert this configuration file of stunnel", parse_text, "", placeholder="FILE")
CONVERT = Command(
    "config convert",
    "Print a configuration file with the effect of command lines, or of a configuration of stunnel.",
    (Group("Input", (STUNNEL,)),),
    """\
Values that are defaults are left out. Relative paths in the output are relative to the directory in
which it is saved. A password of a keystore is written to the output.

Of a configuration of stunnel, each option that has no counterpart is reported on standard error. If
such an option is about authentication, the exit code is 1, and the output has a line that is no
valid configuration in its place, so that it cannot be used unchanged.

Examples:
  tunnel config convert -- server --listen :8443 --target localhost:6379 \\
      --use-workload-api-addr unix:///run/spire/agent.sock --allow-id spiffe://example.org/web
  tunnel config convert --from-stunnel /etc/stunnel/stunnel.conf > tunnel.toml
""",
    rest="server|client FLAGS [+ server|client FLAGS...]",
    is_rest_optional=True,
)
COMMANDS = (CONVERT,)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the file; the exit code. Raises ConfigError for a wrong line."""
    if bool(arguments[STUNNEL]) == bool(arguments.rest):
        raise ConfigError(f"nothing to convert; expected -- server|client FLAGS, or --{STUNNEL.name} FILE, not both")
    return _convert_stunnel(arguments[STUNNEL]) if arguments[STUNNEL] else _convert_lines(arguments.rest, environ)


def _convert_stunnel(path: str) -> int:
    from tunnel.config.stunnel.convert import convert_stunnel, read_stunnel

    converted = convert_stunnel(read_stunnel(path), path)
    print_problems(converted.notes, "note")
    print_problems(converted.errors, "error")
    print_output(converted.text)
    return 1 if converted.errors else 0


def build_lines(rest: Sequence[str], environ: Mapping[str, str]) -> ProcessConfig:
    """The configuration of lines of `server` and `client`, separated by `+`; raises ConfigError."""
    from tunnel.commands.proxy.build import build, check_line
    from tunnel.commands.run.command import join_lines, split_lines

    processes = []
    for line in split_lines(rest):
        parsed = parse_command_line(line, proxy.COMMANDS, environ, global_flags=proxy.GLOBAL_FLAGS, expands_files=True)
        check_line(parsed.arguments)
        processes.append(build(parsed.command, parsed.arguments))
    if len(processes) == 1:
        return processes[0]
    return replace(
        join_lines(processes),
        shutdown_delay=max(process.shutdown_delay for process in processes),
        shutdown_timeout=max(process.shutdown_timeout for process in processes),
    )


def _convert_lines(rest: Sequence[str], environ: Mapping[str, str]) -> int:
    from tunnel.config.file.encode import Style, encode_config

    config = build_lines(rest, environ)
    sources = [listener.identity.source for listener in config.listeners]
    if any(isinstance(one, Keystore) and one.password for one in sources):
        print_message("warning: the output has the password of a keystore; use storepass-file instead")
    try:
        print_output(encode_config(config, Style(is_masked=False)))
    except UnicodeEncodeError:
        raise ConfigError("a value is not Unicode, which TOML cannot express") from None
    return 0
