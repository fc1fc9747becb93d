"""`tunnel top` on a real terminal, about a real proxy with real connections."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.config_files import ServedFile
from tests.support.cookbook_services import sshd
from tests.support.plain_backends import Backend, echo, free_port
from tests.support.processes import bare_environment, eventually, tunnel_argv
from tests.support.requirements import program
from tests.support.run_line import has_echo
from tests.support.terminal_process import TerminalProcess
from tests.support.workloads import CLIENT, STRANGER, Workloads
from tunnel.commands.overview.screen import KEYS_LINE

FAST = "--interval=100ms"
RULE = f"to admit this peer: --allow-id {STRANGER}"


@pytest.fixture
def served(workloads: Workloads) -> ServedFile:
    """Two servers whose backend echoes."""
    made = ServedFile(workloads)
    backend = workloads.enter(Backend(echo))
    for name in ("one", "two"):
        made.add(name, backend.target)
    made.start()
    return made


@contextmanager
def top(served: ServedFile, *flags: str, columns: int = 100, lines: int = 30) -> Iterator[TerminalProcess]:
    """`tunnel top` about this process, after its first screen."""
    argv = tunnel_argv("top", f"unix:{served.status}", FAST, *flags)
    with TerminalProcess(argv, environ=bare_environment(), columns=columns, lines=lines) as terminal:
        terminal.wait_for("tunnel top unix:", KEYS_LINE[:20])
        yield terminal


def row(screen: list[str], start: str) -> list[str]:
    """The words of the line that begins so; none if there is no such line."""
    return next((line.split() for line in screen if line.startswith(start)), [])


def assert_restored(terminal: TerminalProcess) -> None:
    """Fail unless the user has the terminal as it was."""
    assert not terminal.is_alternate
    assert terminal.has_cursor
    assert terminal.attributes == terminal.before
    assert "".join(terminal.screen).replace("^C", "").replace("^\\", "").strip() == "", "the main screen is untouched"


def test_the_screen_shows_live_connections_and_refusals(served: ServedFile) -> None:
    with top(served, columns=200) as terminal:
        screen = terminal.wait_for("> Listeners: 2", "Peers: none", "Recent refusals: none", "ready: listening")
        assert terminal.is_alternate
        assert not terminal.has_cursor
        assert f"pid {served.process.pid}" in screen[0]
        assert "spiffe://a.test/server expires in " in screen[3]
        with served.connect("one") as peer:
            assert has_echo(peer)
            terminal.wait_until(
                lambda screen: row(screen, CLIENT)[1:3] + row(screen, CLIENT)[-1:] == ["one", "1", "now"],
                "the peer has a connection",
            )
            terminal.wait_until(lambda screen: row(screen, "one ")[1:3] == ["ready", "1"], "the listener has a connection")
        terminal.wait_until(lambda screen: row(screen, CLIENT)[1:3] == ["one", "0"], "the connection is closed")
        assert not served.is_admitted("two", STRANGER)
        screen = terminal.wait_for(RULE, "no-matching-rule", "Recent refusals: 1")
        (refusal,) = [line.split() for line in screen if line.rstrip().endswith("no-matching-rule")]
        assert refusal[3:5] == ["1", "two"]
        terminal.type("q")
        assert terminal.exit_code() == 0
        assert_restored(terminal)


def test_rates_are_those_of_the_last_interval(served: ServedFile) -> None:
    with top(served, columns=200) as terminal, served.connect("one") as peer:
        assert has_echo(peer)
        terminal.wait_until(lambda screen: row(screen, CLIENT)[4:6] == ["0", "B/s"], "no traffic")
        terminal.wait_until(lambda screen: re.search(r"lag [0-9.e-]+ m?s \(", screen[2]) is not None, "a lag")

        def has_traffic(screen: list[str]) -> bool:
            assert has_echo(peer)
            return re.search(r"forwarded [1-9]", screen[2]) is not None and row(screen, CLIENT)[4:5] != ["0"]

        terminal.wait_until(has_traffic, "traffic")


def test_keys_change_the_view(served: ServedFile) -> None:
    with top(served, lines=40) as terminal:
        terminal.type("\t")
        terminal.wait_for("> Peers")
        terminal.type("\x1b[Z\x1b[Z")
        terminal.wait_for("> Recent refusals")
        terminal.type("\ts")
        terminal.wait_for("> Listeners", "OPEN*")
        terminal.type("?")
        terminal.wait_for("any key returns")
        terminal.type("x?x")  # two keys without a meaning, and one
        terminal.wait_for("> Listeners")
        terminal.type("p")
        terminal.wait_for("PAUSED")
        with served.connect("one") as peer:
            assert has_echo(peer)
            terminal.type("p")
            terminal.wait_until(lambda screen: row(screen, "one ")[1:3] == ["ready", "1"], "the pause is over")
        terminal.type("\x1bOq")  # the beginning of a sequence that ends otherwise
        terminal.type("q")
        assert terminal.exit_code() == 0


def test_arrows_scroll_the_table(workloads: Workloads) -> None:
    served = ServedFile(workloads)
    backend = workloads.enter(Backend(echo))
    for number in range(20):
        served.add(f"s{number:02}", backend.target)
    served.start()
    with top(served, lines=24) as terminal:
        terminal.wait_until(lambda screen: screen[6].startswith("s00 "), "the first line")
        terminal.type("\x1b[B")
        terminal.wait_until(lambda screen: screen[6].startswith("s01 "), "the second line")
        terminal.type("\x1b[F")
        screen = terminal.wait_until(lambda screen: any(line.startswith("s19 ") for line in screen), "the last line")
        assert re.match(r"> Listeners: 20, lines \d+-20 of 20", screen[4])
        terminal.type("\x1b[5~\x1b[5~")
        terminal.wait_until(lambda screen: screen[6].startswith("s00 "), "the first line again")


@pytest.mark.parametrize(("columns", "lines"), [(60, 15), (140, 45), (20, 5), (1, 1)])
def test_a_new_size_draws_the_screen_again(served: ServedFile, columns: int, lines: int) -> None:
    with top(served) as terminal:
        terminal.resize(columns, lines)
        title = f"tunnel top unix:{served.status}"[: max(columns - 2, 1)]
        terminal.wait_until(lambda screen: screen[0].startswith(title), "the title in the new width")
        if lines > 10:
            terminal.wait_until(lambda screen: screen[-1].startswith(KEYS_LINE[: columns - 2]), "the last line at the end")
        assert len(terminal.screen) == lines
        terminal.type("q")
        assert terminal.exit_code() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_every_end_restores_the_terminal(served: ServedFile, number: signal.Signals) -> None:
    with top(served) as terminal:
        terminal.signal(number)
        assert terminal.exit_code() == (0 if number == signal.SIGINT else -number)
        assert_restored(terminal)


@pytest.mark.parametrize(("keys", "code"), [("\x03", 0), ("\x1c", -signal.SIGQUIT), ("\x04", 0)])
def test_keys_of_the_terminal_end_it_as_other_programs(served: ServedFile, keys: str, code: int) -> None:
    with top(served) as terminal:
        terminal.type(keys)
        assert terminal.exit_code() == code
        assert_restored(terminal)


def test_a_terminal_that_is_stopped_does_not_prevent_the_end(served: ServedFile) -> None:
    with top(served) as terminal:
        terminal.type("\x13")  # Ctrl-S
        terminal.signal(signal.SIGTERM)
        terminal.wait_until(lambda _: terminal.attributes == terminal.before, "the attributes are restored")
        terminal.type("\x11")
        assert terminal.exit_code() == -signal.SIGTERM


CRASH = """
import os, sys
from tunnel.commands.overview import run
from tunnel.cli.main import main
draw, screens = run.draw_screen, iter(range(3))
def crash(*arguments):
    next(screens)
    return draw(*arguments)
run.draw_screen = crash
sys.exit(main(sys.argv[1:], os.environ))
"""


def test_an_unexpected_exception_restores_the_terminal(served: ServedFile) -> None:
    argv = [sys.executable, "-c", CRASH, "top", f"unix:{served.status}", FAST]
    with TerminalProcess(argv, environ=bare_environment(), lines=60) as terminal:
        assert terminal.exit_code() == 1
        assert not terminal.is_alternate
        assert terminal.attributes == terminal.before
        assert any("StopIteration" in line for line in terminal.screen), "the traceback can be read"


def test_a_shell_can_suspend_and_continue_it(served: ServedFile) -> None:
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with TerminalProcess(shell, environ={**bare_environment(), "PS1": "ready> "}) as terminal:
        terminal.wait_for("ready>")
        terminal.type(" ".join(tunnel_argv("top", f"unix:{served.status}", FAST)) + "\n")
        terminal.wait_for("> Listeners: 2")
        terminal.type("\x1a")
        terminal.wait_until(lambda screen: not terminal.is_alternate and "Stopped" in "".join(screen), "the shell is back")
        assert terminal.has_cursor
        terminal.type("fg\n")
        terminal.wait_until(lambda screen: terminal.is_alternate and screen[4] == "> Listeners: 2", "the screen is back")
        terminal.type("\t")
        terminal.wait_for("> Peers")
        terminal.type("q")
        terminal.wait_until(lambda screen: not terminal.is_alternate and screen.count("ready>") >= 1, "the shell is back")
        terminal.type("exit 7\n")
        assert terminal.exit_code() == 7


def test_a_silence_of_the_proxy_is_shown_until_it_answers_again(served: ServedFile) -> None:
    with top(served, columns=200) as terminal:
        terminal.wait_for("Listeners: 2")
        before = served.process.pid
        assert served.process.stop() == 0
        screen = terminal.wait_for("NO ANSWER since ")
        assert re.match(r"NO ANSWER since \d\d:\d\d:\d\d \(\d+ seconds?\): unix:", screen[0])
        assert row(screen, "one ")[1] == "ready", "the last numbers stay"
        served.start()
        screen = terminal.wait_for(f"pid {served.process.pid}")
        assert served.process.pid != before
        assert "NO ANSWER" not in screen[0]


def test_one_listener_is_shown_on_request(served: ServedFile) -> None:
    with top(served, "--listener=two") as terminal:
        screen = terminal.wait_for("> Listeners: 1")
        assert row(screen, "two ")[1] == "ready"
        assert not row(screen, "one ")


def test_a_terminal_without_a_screen_is_refused(served: ServedFile) -> None:
    argv = tunnel_argv("top", f"unix:{served.status}")
    with TerminalProcess(argv, environ=bare_environment(), term="dumb") as terminal:
        assert terminal.exit_code() == 1
        assert terminal.screen[0].startswith('tunnel: error: TERM is "dumb" or not set; expected a terminal with a screen')


def test_a_proxy_that_does_not_answer_leaves_the_terminal_alone(served: ServedFile) -> None:
    argv = tunnel_argv("top", f"unix:{served.place}/absent")
    with TerminalProcess(argv, environ=bare_environment(), columns=300) as terminal:
        assert terminal.exit_code() == 1
        assert not terminal.is_alternate
        assert terminal.screen[0].startswith("tunnel top: unix:")
        assert terminal.screen[0].endswith("no such file or directory")


def test_it_works_over_ssh_and_ends_with_the_connection(served: ServedFile, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    line = shlex.join(tunnel_argv("top", f"unix:{served.status}", FAST))
    with sshd(tmp_path, "ListenAddress 127.0.0.1\n", address) as usual:
        (tmp_path / "ssh_config").write_text(f"{usual}Port {address.rpartition(':')[2]}\nHostKeyAlias build.example.org\n")
        login = [program("ssh"), "-F", str(tmp_path / "ssh_config"), "-t", "127.0.0.1", f"echo process $$; exec {line}"]
        with TerminalProcess(login, environ=bare_environment()) as terminal:
            terminal.wait_for("> Listeners: 2")
            terminal.resize(60, 20)
            terminal.wait_until(lambda screen: screen[-1].startswith(KEYS_LINE[:58]), "the remote screen has the new size")
            terminal.type("\x1b[Z")
            terminal.wait_for("> Recent refusals")
            terminal.type("q")
            assert terminal.exit_code() == 0
            assert not terminal.is_alternate
            assert terminal.has_cursor
        with TerminalProcess(login, environ=bare_environment()) as terminal:
            terminal.wait_for("> Listeners: 2")
            (shown,) = [text for text in terminal.main_screen if text.startswith("process ")]
            remote = Path("/proc", shown.split()[-1])
            assert remote.exists()
            terminal.signal(signal.SIGKILL)
            eventually(lambda: not remote.exists(), "the remote process has ended")
