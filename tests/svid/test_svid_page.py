"""The flags, events, keys and metrics in docs/svid.md exist, and its command lines are valid."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.support.cert_factory import NOW
from tests.support.workload_updates import credentials
from tunnel.cli.parser import parse_command_line
from tunnel.commands.registry import load_commands_of
from tunnel.commands.svid import fetch, show, watch
from tunnel.config.svid_model import Output
from tunnel.svid.event_log import Event
from tunnel.svid.update_files import build_update_files, facts_of
from tunnel.svid.watch_state import WatchState

PAGE = (Path(__file__).parents[2] / "docs" / "svid.md").read_text()
BUILDS = {module.COMMAND: module.build for module in (fetch, watch, show)}
LINES = [
    *(shlex.split(line)[1:] for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()),
    *(json.loads(args) for args in re.findall(r"args: (\[.*?\])", PAGE)),
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_its_lines_mean_something(line: list[str]) -> None:
    parsed = parse_command_line(line, load_commands_of("svid"), {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/api.sock"})
    assert BUILDS[parsed.command](parsed.arguments)


def test_it_has_lines() -> None:
    assert len(LINES) == 5


def test_its_flags_exist() -> None:
    flags = {flag.name for command in load_commands_of("svid") for flag in command.flags}
    assert set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", PAGE)) <= flags


def test_it_names_every_event_key_and_number() -> None:
    state = WatchState(has_child=True)
    update = build_update_files(credentials(), Output("/tls"), NOW)
    state.record_written(update, NOW.timestamp())
    named = set(re.findall(r"`([a-z_-]+)`", PAGE))
    assert {event.value for event in Event} <= named
    assert set(state.document(NOW.timestamp(), "")) <= named
    assert set(state.numbers("")) <= named
    assert {*facts_of(update, "/tls"), "rotation", "pid", "exit_code"} <= named
