"""The command tables of a small program with every kind of flag and argument, and the completions expected for it."""

from __future__ import annotations

from tunnel.cli.command import Command, Group, option, positional, positionals, repeated, required, switch
from tunnel.config.values import one_of, parse_text

_MODE = option("mode", "How: as it's told.", one_of("", "fast", "fair"), "", placeholder="MODE")
_OTHERS = repeated("also", "More.", parse_text, placeholder="X", aliases=("too",))
_FILE = required("file", "A file; $HOME is not `expanded`.", parse_text, placeholder="FILE")
_FOLDER = option("folder", "A folder.", parse_text, "", placeholder="DIR")
_HARD = switch("hard", "Hard.", short="x")
_SECRET = option("secret", "Not shown.", parse_text, "", placeholder="X", hidden=True)
_FLAGS = (Group("Flags", (_FILE, _MODE, _OTHERS, _FOLDER, _HARD, _SECRET)),)

TABLES = (
    Command("server", "Serves.", _FLAGS),
    Command("client", "Calls.", (Group("Flags", (_MODE,)),)),
    Command("svid fetch", "Fetches.", _FLAGS),
    Command("svid jwt", "Makes: a token.", (Group("Flags", (_HARD,)),)),
    Command(
        "svid jwt verify",
        "Verifies.",
        positionals=(positional("FILE", "A file.", parse_text), positional("KIND", "What.", one_of("old", "new"))),
    ),
    Command("exec", "Runs.", (Group("Flags", (_MODE,)),), rest="COMMAND [ARG...]"),
    Command("run", "Runs more.", (Group("Flags", (_FOLDER,)),), lines="server|client FLAGS [+ ...] -- COMMAND [ARG...]"),
    Command("man", "Tells.", positionals=(positionals("COMMAND", "What.", parse_text),)),
    Command("help", "Tells more."),
)
_LETTERS = {"--file", "--mode", "--also", "--folder", "--hard", "--no-hard", "-x"}

# A line up to the cursor, and what is offered for its last word. Files are the shell's own work.
LINES: dict[str, set[str]] = {
    "tunnel s": {"server", "svid"},
    "tunnel ": {"server", "client", "svid", "exec", "run", "man", "help"},
    "tunnel --": {"--help", "--help-long", "--version"},
    "tunnel svid ": {"fetch", "jwt"},
    "tunnel svid jwt v": {"verify"},
    "tunnel svid jwt -": {"--hard", "--no-hard", "-x", "--help"},
    "tunnel server -": {*_LETTERS, "--help"},
    "tunnel svid fetch --f": {"--file", "--folder"},
    "tunnel server --mode f": {"fast", "fair"},
    "tunnel server --mode=fa": {"--mode=fast", "--mode=fair"},
    "tunnel server --hard --mode fai": {"fair"},
    "tunnel server --also --mode": set(),
    "tunnel server --too exec --mode fas": {"fast"},
    "tunnel server --secret fa": set(),
    "tunnel server --secret x --fil": {"--file"},
    "tunnel server --also=client --mo": {"--mode"},
    "tunnel svid jwt verify token n": {"new"},
    "tunnel exec --m": {"--mode"},
    "tunnel server -- --m": set(),
    "tunnel run --f": {"--folder"},
    "tunnel run --folder x s": {"server"},
    "tunnel run server --h": {"--hard"},
    "tunnel run server --mode fair +": {"+"},
    "tunnel run server --mode fair + c": {"client"},
    "tunnel run server --mode fair + client --": {"--mode"},
    "tunnel man svid j": {"jwt"},
    "tunnel man svid jwt ": {"verify"},
    "tunnel help sv": {"svid"},
}


def visible_flags(command: Command) -> set[str]:
    """What there is to be offered behind a dash."""
    seen = {"--help"}
    for flag in command.flags:
        if not flag.is_hidden:
            seen |= {f"--{flag.name}"} | ({f"--no-{flag.name}"} if flag.parse is None else set())
            seen |= {f"-{flag.short}"} if flag.short else set()
    return seen
