"""Each default is written once, in the configuration; the help shows it, and no help text repeats it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tunnel.cli.command import Command, Flag
from tunnel.cli.parser import Parsed, parse_command_line
from tunnel.commands import connect, health
from tunnel.commands.demo import command as demo
from tunnel.commands.dev import command as dev
from tunnel.commands.health import HealthConfig
from tunnel.commands.proxy.build import build as build_proxy
from tunnel.commands.registry import load_commands
from tunnel.commands.run import command as run
from tunnel.commands.run.command import RunConfig
from tunnel.commands.status_query import StatusQuery
from tunnel.commands.svid import fetch, watch
from tunnel.config.dev_model import DevConfig, Issuing
from tunnel.config.model import (
    Access,
    Acme,
    IdentityConfig,
    ListenerConfig,
    Metrics,
    Monitor,
    ProcessConfig,
    Status,
    WorkloadApi,
)
from tunnel.config.status_url import parse_status_url
from tunnel.config.svid_model import FetchConfig, Output, ReloadCommand, Supervised, WatchConfig
from tunnel.config.values import default_of
from tunnel.net.address import TcpAddress
from tunnel.spiffe.endpoint import WorkloadEndpoint

ENVIRON = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/api.sock"}
API = WorkloadApi(WorkloadEndpoint(path="/run/api.sock"))
SERVER = ("server", "--listen=:1", "--target=localhost:2", "--allow-id=spiffe://a.test/w")
FLAGS = [(command, flag) for command in load_commands() for flag in (*command.flags, *command.positionals)]


def parse(*argv: str) -> Parsed:
    return parse_command_line(argv, load_commands(), ENVIRON)


def test_the_flags_of_a_proxy_have_the_defaults_of_its_configuration() -> None:
    parsed = parse(*SERVER, "--status=:3")
    config = build_proxy(parsed.command, parsed.arguments)
    (listener,), (monitor,) = config.listeners, config.monitors
    addresses = TcpAddress("", "1"), (TcpAddress("localhost", "2"),)
    assert listener == ListenerConfig("server", True, *addresses, IdentityConfig(API), listener.access)
    assert listener.access == Access(listener.access.rules)
    assert monitor.status is not None
    assert monitor == Monitor(Status(monitor.status.address), Metrics())
    assert config == ProcessConfig((listener,), (monitor,))


def test_the_flags_of_acme_have_the_defaults_of_its_configuration() -> None:
    parsed = parse_command_line(
        [*SERVER[:3], "--allow-all", "--auto-acme-cert=a.test", "--auto-acme-email=a@b", "--auto-acme-agree-to-tos"],
        load_commands(),
        {},
    )
    (listener,) = build_proxy(parsed.command, parsed.arguments).listeners
    assert listener.identity == IdentityConfig(Acme("a.test", "a@b", ""))


def test_the_flags_of_run_have_the_defaults_of_its_configuration() -> None:
    config = run.build(parse("run", *SERVER, "--", "true").arguments, ENVIRON)
    assert config == RunConfig(config.process, ("true",))
    assert config.process == ProcessConfig(config.process.listeners, shutdown_timeout=config.stop_timeout)


def test_the_flags_of_dev_have_the_defaults_of_its_configuration() -> None:
    config = dev.build(parse("dev").arguments, {})
    assert config == DevConfig(config.sockets, (), Issuing(), rotate=1800.0, ca_rotate=timedelta(hours=4).total_seconds())


def test_the_flags_of_svid_have_the_defaults_of_its_configuration() -> None:
    config = fetch.build(parse("svid", "fetch", "--out=/x").arguments)
    assert config == FetchConfig(config.source, Output("/x"))
    watched = watch.build(parse("svid", "watch", "--out=/x", "--reload-command=y").arguments)
    assert watched == WatchConfig(watched.source, Output("/x"), ReloadCommand(("y",)))
    assert watch.build(parse("svid", "watch", "--out=/x", "--", "y").arguments).child == Supervised(("y",))


def test_the_flags_of_other_commands_have_the_defaults_of_their_configurations() -> None:
    assert health.build(parse("health", "localhost:1").arguments) == HealthConfig(StatusQuery(parse_status_url("localhost:1")))
    assert demo.build(parse("demo").arguments) == demo.DemoConfig()
    config = connect.build(parse("connect", "db.test:1", "--verify-id=spiffe://a.test/w").arguments)
    (listener,) = config.listeners
    assert listener.connect_timeout == default_of(ListenerConfig, "connect_timeout")
    assert listener.close_timeout == 86400


@pytest.mark.parametrize(("command", "flag"), FLAGS, ids=[f"{command.name} {flag.name}" for command, flag in FLAGS])
def test_a_default_is_shown_in_parentheses_and_written_nowhere_else(command: Command, flag: Flag[Any]) -> None:
    assert "(default" not in flag.summary
    assert "; default" not in flag.summary
    assert not flag.help.endswith("."), "an imperative fragment"
    if isinstance(flag.default, int | float) and flag.parse is not None:
        assert "(default " in flag.help
    if flag.default_text:
        assert flag.help.endswith(f" (default {flag.default_text})")
