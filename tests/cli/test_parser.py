"""kingpin's grammar as in ghostunnel: lines, their values, and the errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tunnel.cli.command import Arguments, Command, Group, option, positional, positionals, repeated, required, switch
from tunnel.cli.help import command_line
from tunnel.cli.parser import HelpRequested, Parsed, VersionRequested, parse_command_line
from tunnel.errors import ConfigError, invalid_value


def parse_number(text: str) -> int:
    if not text.isdigit():
        raise invalid_value("number", text)
    return int(text)


LISTEN = required("listen", "Where.", str, placeholder="ADDR")
TARGET = required("target", "Whither.", str, placeholder="ADDR")
FORCE = switch("force", "Hard.")
EASY = switch("easy", "Soft.", default=True)
COUNT = option("count", "How many.", parse_number, 7, placeholder="N", env="COUNT")
ALLOW = repeated("allow", "Whom.", str, placeholder="WHO", aliases=("allow-too",))
EARLY = option("early", "Anywhere.", parse_number, 0, placeholder="N")
RUN = Command("run", "Runs.", (Group("Flags", (LISTEN, TARGET, FORCE, EASY, COUNT, ALLOW, EARLY)),))
IDLE = Command("idle", "Idles.", (Group("Flags", (FORCE,)),))
HELP = Command("help", "Helps.")
NEEDED = ("--listen", "l", "--target", "t")


def parse(*argv: str, environ: Mapping[str, str] | None = None) -> Parsed:
    return parse_command_line(argv, (RUN, IDLE, HELP), environ or {}, global_flags=(EARLY,))


def run(*argv: str, environ: Mapping[str, str] | None = None) -> Arguments:
    parsed = parse("run", *NEEDED, *argv, environ=environ)
    assert parsed.command is RUN
    return parsed.arguments


def mistake(*argv: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as wrong:
        parse(*argv, environ=environ)
    return str(wrong.value)


def test_a_misspelled_word_gets_a_suggestion() -> None:
    assert mistake("run", *NEEDED, "--cuont=1") == "unknown long flag '--cuont', did you mean '--count'"
    assert mistake("idel") == 'expected command but got "idel"'
    assert mistake("helpp") == "expected command but got \"helpp\", did you mean 'help'"
    assert mistake("run", *NEEDED, "--nothing-like-it") == "unknown long flag '--nothing-like-it'"


def test_a_missing_flag_has_its_default() -> None:
    arguments = run()
    assert (arguments[LISTEN], arguments[TARGET], arguments[COUNT], arguments[ALLOW]) == ("l", "t", 7, ())
    assert (arguments[FORCE], arguments[EASY]) == (False, True)


@pytest.mark.parametrize("argv", [("--count", "3"), ("--count=3",)])
def test_a_value_comes_after_a_space_or_an_equals_sign(argv: tuple[str, ...]) -> None:
    assert run(*argv)[COUNT] == 3


@pytest.mark.parametrize("value", ["", "-", "--force", "-1", "a=b", "@file", "x y", "\u00fc"])
def test_after_an_equals_sign_anything_goes(value: str) -> None:
    assert run(f"--allow={value}")[ALLOW] == (value,)


def test_an_empty_argument_is_a_value() -> None:
    assert run("--allow", "")[ALLOW] == ("",)


def test_booleans_are_set_and_cleared() -> None:
    assert run("--force")[FORCE] is True
    assert run("--no-force")[FORCE] is False
    assert run("--no-easy")[EASY] is False
    assert run("--easy")[EASY] is True


def test_repeated_values_come_in_order_and_aliases_add_to_them() -> None:
    assert run("--allow", "a", "--allow-too=b", "--allow", "a")[ALLOW] == ("a", "b", "a")


def test_global_flags_can_stand_before_or_after_the_command() -> None:
    assert parse("--early", "3", "run", *NEEDED).arguments[EARLY] == 3
    assert parse("run", *NEEDED, "--early", "3").arguments[EARLY] == 3


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown command": (("foo",), 'expected command but got "foo"'),
    "empty command": (("",), 'expected command but got ""'),
    "unknown flag": (("run", "--foo"), "unknown long flag '--foo'"),
    "unknown flag with a value": (("run", "--foo=1"), "unknown long flag '--foo'"),
    "unknown flag before the command": (("--foo", "run"), "unknown long flag '--foo'"),
    "late flag before the command": (("--listen", "x", "run"), "unknown long flag '--listen'"),
    "early flag that the command lacks": (("--early", "3", "idle"), "unknown long flag '--early' for idle"),
    "early flag after the command that lacks it": (("idle", "--early=3"), "unknown long flag '--early' for idle"),
    "flag of another command": (("idle", "--listen", "x"), "unknown long flag '--listen'"),
    "abbreviated": (("run", "--lis", "x"), "unknown long flag '--lis'"),
    "other case": (("run", "--Listen", "x"), "unknown long flag '--Listen'"),
    "short": (("run", "-f"), "unknown short flag '-f'"),
    "short, with more": (("run", "-force"), "unknown short flag '-f'"),
    "short help": (("-h",), "unknown short flag '-h'"),
    "negated value": (("run", "--no-count"), "unknown long flag '--no-count'"),
    "negated help": (("run", "--no-help"), "unknown long flag '--no-help'"),
    "boolean with a value": (("run", *NEEDED, "--force=true"), "unexpected true"),
    "boolean with a word": (("run", *NEEDED, "--force", "true"), "unexpected true"),
    "help with a value": (("run", "--help=x"), "unknown long flag '--help'"),
    "second command": (("run", *NEEDED, "idle"), "unexpected idle"),
    "a single dash": (("run", *NEEDED, "-"), "unexpected -"),
    "value missing": (("run", "--listen"), "expected argument for flag '--listen'"),
    "value like a flag": (("run", "--listen", "--target", "t"), "expected argument for flag '--listen'"),
    "value like a number below zero": (("run", "--count", "-1"), "expected argument for flag '--count'"),
    "value is --": (("run", "--listen", "--"), "expected argument for flag '--listen'"),
    "given twice": (("run", "--listen", "a", "--listen", "b"), "flag 'listen' cannot be repeated"),
    "given twice alike": (("run", "--listen=a", "--listen=a"), "flag 'listen' cannot be repeated"),
    "boolean twice": (("run", "--force", "--force"), "flag 'force' cannot be repeated"),
    "boolean set and cleared": (("run", "--force", "--no-force"), "flag 'force' cannot be repeated"),
    "early flag before and after": (("--early", "1", "run", "--early", "2"), "flag 'early' cannot be repeated"),
    "required missing": (("run",), "required flag(s) '--listen', '--target' not provided"),
    "one required missing": (("run", "--listen", "l"), "required flag(s) '--target' not provided"),
    "bad value": (("run", *NEEDED, "--count", "x"), '--count: invalid number "x"'),
    "empty value": (("run", *NEEDED, "--count="), '--count: invalid number ""'),
    "after --": (("run", *NEEDED, "--", "--force"), "unexpected --force"),
    "word after --": (("run", *NEEDED, "--", "x"), "unexpected x"),
    "help on nothing known": (("help", "foo"), 'expected command but got "foo"'),
    "file that is not there": (("run", "@/nonexistent/args"), "cannot read arguments from '/nonexistent/args'"),
    "file with a zero byte in its name": (("run", "@\0"), "cannot read arguments from"),
    "file without a name": (("run", "@"), "cannot read arguments from"),
}


@pytest.mark.parametrize(("argv", "words"), MISTAKES.values(), ids=MISTAKES)
def test_an_invalid_line_is_an_error(argv: tuple[str, ...], words: str) -> None:
    assert mistake(*argv).startswith(words)


def test_a_command_may_stand_behind_the_end_of_flags() -> None:
    assert parse("--", "idle").command is IDLE
    assert parse("run", *NEEDED, "--").command is RUN


# -- help


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        ((), None),
        (("--help",), None),
        (("--early", "1"), None),
        (("--",), None),
        (("run", "--help"), RUN),
        (("run", "--listen", "x", "--help"), RUN),
        (("run", "--help", "--foo"), RUN),
        (("--help", "run"), None),
        (("help", "run"), RUN),
        (("help", "--help"), HELP),
        (("help", "help"), HELP),
    ],
)
def test_help_is_requested(argv: tuple[str, ...], command: Command | None) -> None:
    with pytest.raises(HelpRequested) as wanted:
        parse(*argv)
    assert wanted.value.command is command


@pytest.mark.parametrize("argv", [("--version",), ("run", "--version"), ("--version", "--help")])
def test_the_version_is_requested(argv: tuple[str, ...]) -> None:
    with pytest.raises(VersionRequested):
        parse(*argv)


def test_help_as_the_value_of_a_flag_is_a_value() -> None:
    assert run("--allow=--help")[ALLOW] == ("--help",)


# -- environment


@pytest.mark.parametrize(
    ("argv", "environ", "value"),
    [
        ((), {}, 7),
        ((), {"COUNT": ""}, 7),
        ((), {"COUNT": "3"}, 3),
        (("--count=4",), {"COUNT": "3"}, 4),
        (("--count=4",), {"COUNT": "rubbish"}, 4),
        (("--count=7",), {"COUNT": "3"}, 7),
    ],
)
def test_the_environment_is_used_if_the_flag_is_missing(argv: tuple[str, ...], environ: dict[str, str], value: int) -> None:
    assert run(*argv, environ=environ)[COUNT] == value


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    assert mistake("run", *NEEDED, environ={"COUNT": "x"}) == 'COUNT: invalid number "x"'


def test_the_environment_of_another_command_is_ignored() -> None:
    assert parse("idle", environ={"COUNT": "rubbish"}).command is IDLE


# -- files of arguments


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "args"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return f"@{path}"

    return write


def test_a_file_stands_for_its_lines(write: Callable[[str], str]) -> None:
    file = write("--listen\nl\n\n# a remark\n   \n--target=t\n--allow=with spaces # and no remark\n--allow\n#hidden\n@x\r\n")
    arguments = parse("run", file, "--count", "3").arguments
    assert (arguments[LISTEN], arguments[TARGET], arguments[COUNT]) == ("l", "t", 3)
    assert arguments[ALLOW] == ("with spaces # and no remark", "@x"), "a file is not read from a file"


def test_the_command_may_come_from_a_file(write: Callable[[str], str]) -> None:
    assert parse(write("idle\n--force")).arguments[FORCE] is True


def test_a_file_may_hold_the_value_of_a_flag(write: Callable[[str], str]) -> None:
    assert run("--allow", write("x"))[ALLOW] == ("x",)


def test_an_empty_file_stands_for_nothing(write: Callable[[str], str]) -> None:
    assert parse("idle", write("")).command is IDLE


def test_after_the_end_of_flags_a_file_is_a_word(write: Callable[[str], str]) -> None:
    file = write("--force")
    assert mistake("idle", "--", file) == f"unexpected {file}"


def test_a_file_that_is_not_utf8_is_an_error(write: Callable[[str], str]) -> None:
    assert mistake("idle", write("\udcff")).startswith("cannot read arguments from")


def test_a_directory_instead_of_a_file_is_an_error(tmp_path: Path) -> None:
    assert mistake("idle", f"@{tmp_path}").startswith("cannot read arguments from")


FAMILY = (
    Command("do", "Does.", positionals=(positional("THING", "What to do.", str),), rest="COMMAND [ARG...]"),
    Command("do twice", "Does it twice.", (Group("How", (switch("loud", "Say so.", short="l"),)),)),
    Command("keep go", "Goes on.", positionals=(positional("THING", "What.", str, default="all", required=False),)),
    Command("keep up", "Is fast."),
    Command("line", "Takes lines.", (Group("How", (switch("soon", "At once."),)),), lines="LINE [+ LINE...]"),
    HELP,
)


def family(*argv: str) -> Parsed:
    return parse_command_line(argv, FAMILY, {})


def test_a_command_may_have_two_words_and_be_the_beginning_of_another() -> None:
    assert family("do", "it", "--", "x").command.name == "do"
    assert family("do", "twice").command.name == "do twice"
    assert family("keep", "up").command.name == "keep up"


def test_a_family_alone_asks_for_help_on_it() -> None:
    with pytest.raises(HelpRequested) as wanted:
        family("keep")
    assert (wanted.value.command, wanted.value.family) == (None, "keep")
    with pytest.raises(ConfigError, match="expected command but got \"keep pu\", did you mean 'keep up'"):
        family("keep", "pu")


@pytest.mark.parametrize(
    ("words", "name", "beginning"), [(["keep"], "", "keep"), (["keep", "go"], "keep go", ""), (["do"], "do", "")]
)
def test_help_takes_names_of_two_words(words: list[str], name: str, beginning: str) -> None:
    with pytest.raises(HelpRequested) as wanted:
        family("help", *words)
    assert (wanted.value.command.name if wanted.value.command else "", wanted.value.family) == (name, beginning)


def test_positional_arguments_have_an_order() -> None:
    (thing,) = FAMILY[2].positionals
    assert family("keep", "go").arguments[thing] == "all"
    assert family("keep", "go", "home").arguments[thing] == "home"
    with pytest.raises(ConfigError, match="unexpected now"):
        family("keep", "go", "home", "now")
    with pytest.raises(ConfigError, match=r"THING is missing: What to do.$"):
        family("do", "--", "true")


def test_arguments_behind_two_dashes_are_not_parsed() -> None:
    assert family("do", "it", "--", "psql", "--help", "@x", "--", "y").arguments.rest == ("psql", "--help", "@x", "--", "y")
    for line in (["do", "it"], ["do", "it", "--"]):
        with pytest.raises(ConfigError, match=r"nothing to run: -- COMMAND \[ARG\.\.\.\] is missing"):
            family(*line)
    with pytest.raises(ConfigError, match=r"unexpected psql; expected the command to run after --: -- psql \.\.\."):
        family("do", "it", "psql")


def test_arguments_behind_two_dashes_can_be_optional() -> None:
    watch = Command("watch", "Watches.", rest="COMMAND [ARG...]", is_rest_optional=True)
    for line, rest in ((["watch"], ()), (["watch", "--"], ()), (["watch", "--", "x", "--y"], ("x", "--y"))):
        assert parse_command_line(line, (watch,), {}).arguments.rest == rest
    assert command_line(watch) == "watch [FLAGS] [-- COMMAND [ARG...]]"


def test_a_command_with_lines_takes_the_rest_of_the_line() -> None:
    parsed = family("line", "--soon", "server", "--soon", "--", "x", "+", "client")
    assert parsed.arguments.rest == ("server", "--soon", "--", "x", "+", "client")
    with pytest.raises(ConfigError, match="is missing"):
        family("line", "--soon")


def test_a_switch_may_have_a_letter() -> None:
    assert family("do", "twice", "-l").arguments[FAMILY[1].flags[0]] is True
    for line in (["do", "twice", "-l", "-l"], ["do", "twice", "-lx"], ["keep", "up", "-l"]):
        with pytest.raises(ConfigError):
            family(*line)


def test_a_flag_of_the_command_overrides_a_global_flag() -> None:
    own = switch("early", "Something else.", short="e")
    command = Command("look", "Looks.", (Group("Flags", (own,)),))
    for line in (["look", "--early"], ["look", "-e"]):
        assert parse_command_line(line, (RUN, command), {}, global_flags=(EARLY,)).arguments[own] is True
    with pytest.raises(ConfigError, match="unknown long flag '--early' for look"):
        parse_command_line(["--early=1", "look"], (RUN, command), {}, global_flags=(EARLY,))


def test_the_last_word_of_a_command_may_come_any_number_of_times() -> None:
    first, more = positional("FIRST", "One.", str), positionals("MORE", "Others.", parse_number)
    command = Command("add", "Adds.", (Group("Flags", (FORCE,)),), positionals=(first, more))
    for line, seen in ((["add", "a"], ()), (["add", "a", "1"], (1,)), (["add", "a", "1", "--force", "2"], (1, 2))):
        assert parse_command_line(line, (command,), {}).arguments[more] == seen
    with pytest.raises(ConfigError, match='MORE: invalid number "b"'):
        parse_command_line(["add", "a", "1", "b"], (command,), {})
