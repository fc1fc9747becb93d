"""`tunnel completion`: print a completion script, and kingpin's flags for the same."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from tunnel.cli.command import Arguments, Command, positional
from tunnel.cli.completion import Context, build_contexts, candidates
from tunnel.cli.output import print_output
from tunnel.cli.shells import SCRIPTS
from tunnel.commands.registry import load_program
from tunnel.config.values import one_of

SHELL = positional("SHELL", "bash, zsh or fish", one_of(*SCRIPTS))

COMMAND = Command(
    "completion",
    "Print a completion script for a shell: commands, flags, choices and file names.",
    (),
    """\
The script is complete: it runs no program during completion. Print it again after an update of
tunnel.

Examples:
  tunnel completion bash > /etc/bash_completion.d/tunnel
  tunnel completion zsh > /usr/local/share/zsh/site-functions/_tunnel
  tunnel completion fish > ~/.config/fish/completions/tunnel.fish
  source <(tunnel completion bash)
""",
    positionals=(SHELL,),
)
COMMANDS = (COMMAND,)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the script for a shell."""
    return print_script(arguments[SHELL])


def print_script(shell: str) -> int:
    """Print the script for a shell; the exit code."""
    program = load_program()
    print_output(SCRIPTS[shell](program.name, _build_contexts()))
    return 0


def print_candidates(words: Sequence[str]) -> int:
    """Print the completions of the last word, one per line; the exit code."""
    print_output("".join(f"{word}\n" for word in candidates(_build_contexts(), words)))
    return 0


def _build_contexts() -> dict[str, Context]:
    program = load_program()
    return build_contexts(program.commands, program.global_flags)
