"""The output blocks in docs/check.md are what the program prints."""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

import tunnel.commands.check  # noqa: F401  # loaded before we are another user, who may not read it
from tests.support.check_runner import another_user
from tests.support.plain_backends import Backend, echo
from tests.support.processes import Proxy, bare_environment, tunnel_argv
from tunnel.cli.main import main
from tunnel.config.dev_model import Entry
from tunnel.devapi.api import DevWorkloadApi
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id

PAGE = Path(__file__).parents[2] / "docs" / "check.md"
BLOCKS = re.findall(r"^##+ (.+?)$|^```text\n(.+?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
CACHE, WEB = Entry(parse_spiffe_id("spiffe://example.org/cache")), Entry(parse_spiffe_id("spiffe://example.org/web"))
BATCH = Entry(parse_spiffe_id("spiffe://example.org/batch"), hint="internal")
# What differs from one machine and one moment to the next.
_VARYING = [
    (r"pid \d+", "pid N"),
    (r"(uid|gid) \d+( \([\w-]+\))?", r"\1 N"),
    (r", groups [\w ()-]+$", ""),
    (r"unix:uid:\d+", "unix:uid:N"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, \d+ \w+ of \d+ \w+", "DATE"),
    (r"executable: \S+", "executable: PYTHON"),
]


class PageEnvironment:
    """An agent with a socket for each part, and the server of the page."""

    def __init__(self, directory: Path, things: ExitStack) -> None:
        self.directory = directory
        sockets = {name: WorkloadEndpoint(path=f"{directory}/{name}/agent.sock") for name in ("cache", "web", "both", "nobody")}
        for name in sockets:
            (directory / name).mkdir(mode=0o700)
        entries = {"cache": [CACHE], "web": [WEB], "both": [WEB, BATCH], "nobody": []}
        things.enter_context(DevWorkloadApi({sockets[name]: entries[name] for name in sockets}))
        backend = things.enter_context(Backend(echo))
        flags = (f"--use-workload-api-addr={sockets['cache']}", f"--target={backend.target}", f"--allow-id={WEB.spiffe_id}")
        self.server = Proxy(tunnel_argv("server", "--listen=127.0.0.1:0", *flags), environ=bare_environment())
        things.callback(self.server.close)

    def run(self, place: str, line: str) -> int:
        """The exit code of a line of the page, with the addresses of this environment in place of those of the page."""
        line = line.replace("unix:///run/spire", f"unix://{self.directory}/{place}").replace("localhost:6379", "127.0.0.1:0")
        program, *argv = shlex.split(line.replace("cache.example.org:8443", self.server.target))
        assert program == "tunnel"
        return main([*argv, *(["--timeout=0.5s"] if place == "nobody" else [])], {})

    def as_on_the_page(self, place: str, text: str) -> list[str]:
        text = text.replace(f"{self.directory}/{place}", "/run/spire").replace(self.server.target, "cache.example.org:8443")
        return steady(text)


def steady(text: str) -> list[str]:
    """The lines of a text without what varies."""
    for pattern, word in _VARYING:
        text = re.sub(pattern, word, text)
    return text.splitlines()


def blocks() -> Iterator[tuple[str, str, str]]:
    """Heading, command and output of each block, in order; wrapped lines are one again."""
    heading = ""
    for title, block in BLOCKS:
        heading = title or heading
        if block:
            command, _, output = re.sub(r"\n +", " ", block).partition("\n")
            yield heading, command.removeprefix("$ "), output


@pytest.fixture(scope="module")
def environment() -> Iterator[PageEnvironment]:
    with ExitStack() as things:
        directory = Path(things.enter_context(tempfile.TemporaryDirectory(prefix="tunnel-page-")))
        directory.chmod(0o755)
        yield PageEnvironment(directory, things)


# Whose agent each block has, in the order of the page.
PLACES = ["web", "web", "nobody", "both", "web", "both", "web"]


@pytest.mark.parametrize(("place", "block"), [*zip(PLACES, blocks(), strict=True)], ids=lambda value: str(value[0]))
def test_the_page_shows_what_is_printed(
    environment: PageEnvironment, capsys: pytest.CaptureFixture[str], place: str, block: tuple[str, str, str]
) -> None:
    heading, command, output = block
    is_denied = heading == "Socket not reachable"
    if is_denied and os.geteuid() != 0:
        pytest.skip("only root can be another user")
    with another_user() if is_denied else nullcontext():
        code = environment.run(place, command)
    assert code == (1 if "!!" in output or "error" in output else 0)
    printed = capsys.readouterr()
    printed_lines = environment.as_on_the_page(place, printed.out + printed.err)
    for line in steady(output):
        assert line in printed_lines
        del printed_lines[: printed_lines.index(line) + 1]  # in this order


def test_the_document_is_as_the_page_has_it(environment: PageEnvironment, capsys: pytest.CaptureFixture[str]) -> None:
    _, command, _ = next(block for block in blocks() if "/kache" in block[1])
    assert environment.run("both", f"{command} --json --status=127.0.0.1:0") == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    document = json.loads(printed.out)
    assert (document["command"], document["ok"]) == ("check client", False)
    rows = document["findings"]
    assert all({"name", "verdict", "detail"} <= set(row) <= {"name", "verdict", "detail", "advice"} for row in rows)
    assert {row["verdict"] for row in rows} == {"ok", "warning", "problem"}
    named = set(re.findall(r"`([a-z-]+)`", PAGE.read_text().partition("| name |")[2]))
    assert {row["name"] for row in rows} <= named
