"""`tunnel serve`: all listeners of a configuration file in one process."""

from __future__ import annotations

from collections.abc import MutableMapping

from tunnel.cli.command import Arguments, Command, Group, positionals, repeated, switch
from tunnel.commands.config.command import print_problems
from tunnel.config.values import parse_name
from tunnel.errors import ConfigError

CONFIG = repeated(
    "config",
    "Configuration file, or a directory of *.toml files; repeatable, all files together are one configuration",
    parse_name,
    placeholder="FILE",
)
FILES = positionals("FILE", "The same as --config FILE", parse_name)
WATCH = switch("watch", "Reload when a configuration file, or another file that it names, changes")

COMMAND = Command(
    "serve",
    "Run all servers and clients of a configuration file in one process.",
    (Group("Configuration", (CONFIG, WATCH)),),
    """\
SIGHUP reloads the configuration, certificates, policies and revocation lists. Everything new is
built and checked first. If there is a mistake, nothing changes, and the log, the status port and
the metrics say so. Listeners that do not change are not touched. 'tunnel config check' finds
mistakes before a reload; 'tunnel config convert' writes the file of a command line.

Examples:
  tunnel serve --config tunnel.toml
  tunnel serve --config /etc/tunnel/ --watch
""",
    positionals=(FILES,),
)
COMMANDS = (COMMAND,)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Serve until a signal or an error; the exit code. Raises ConfigError for a line without a file."""
    paths: tuple[str, ...] = (*arguments[CONFIG], *arguments[FILES])
    if not paths:
        raise ConfigError("required flag(s) '--config' not provided")
    from tunnel.commands.proxy.run import run_service
    from tunnel.commands.start import open_reload_source
    from tunnel.config.file.problem import ConfigFileError

    reload_source = open_reload_source(paths, is_watching=arguments[WATCH])
    try:
        config = reload_source.read()
    except ConfigFileError as error:
        print_problems(error.problems, "error")
        return 1
    return run_service(command.name, config.log, lambda: config, environ, reload_source=reload_source)
