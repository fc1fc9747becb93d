"""`tunnel demo`: the whole way of a connection, shown with real processes on this machine.

Knows the play and its actors (`demo_stage` starts them); must not know how a proxy works: it sees what an operator sees,
bytes and log lines.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tunnel.cli.output import show
from tunnel.cli.parser import Arguments, Command
from tunnel.commands.demo import command as demo
from tunnel.commands.demo.command import DemoConfig
from tunnel.commands.demo.stage import Actor, DemoError, PlainClient, Stage

_DOMAIN = "spiffe://demo.test"
_PICTURE = """\
  caller --plain--> client proxy ==mutual TLS==> server proxy --plain--> service
                    {domain}/caller               {domain}/service
"""
_GENERATION = re.compile(r"identity updated: spiffe_id=(?P<id>\S+) generation=(?P<number>\d+) expires_at=(?P<until>\S+)")
_OPENING = re.compile(r"opening pipe: .* peer=(?P<peer>\S+) rule=(?P<rule>\S+)")
_REFUSED = re.compile(r"error on TLS handshake from .* reason=(?P<reason>\S+)")


@dataclass(frozen=True)
class Cast:
    """The proxies of the play."""

    server: Actor
    client: Actor
    stranger: Actor


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Play it; 0 when everything went as it should, 1 with one line when not."""
    config = demo.build(arguments)
    began = time.monotonic()
    try:
        with ExitStack() as resources:
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="tunnel-demo-")))
            stage = Stage(folder, resources)
            _play(stage, config)
    except DemoError as error:
        sys.stderr.write(f"tunnel demo: error: {error}\n")
        return 1
    _say(
        "\nSummary: both sides proved who they are and named whom they accept; identities rotated without a lost\n"
        "connection; a stranger was refused before a byte reached the service. The service and the caller were not changed.\n"
        f"It took {time.monotonic() - began:.0f} seconds; nothing is left running, and no key was ever on disk."
    )
    _say("Next: 'tunnel help server' and 'tunnel help client'; 'tunnel dev' serves such identities for your own tests.")
    return 0


def _play(stage: Stage, config: DemoConfig) -> None:
    _say("A plain TCP service gets a SPIFFE identity. All of it happens on this machine.\n")
    _say(_PICTURE.format(domain=_DOMAIN))
    cast = _enter(stage, config)
    caller = _talk(stage, cast)
    _rotate(stage, cast, caller)
    _refuse(stage, cast)
    caller.close()


def _enter(stage: Stage, config: DemoConfig) -> Cast:
    _say("1. A throw-away Workload API hands out identities, and the proxies take theirs.")
    stage.start_workload_api({name: f"{_DOMAIN}/{name}" for name in ("service", "caller", "stranger")}, config.rotate)
    service = stage.start_service()
    server = stage.start_proxy("server", "service", f"127.0.0.1:{service}", f"--allow-id={_DOMAIN}/caller")
    client = stage.start_proxy("client", "caller", server.address, f"--verify-id={_DOMAIN}/service")
    stranger = stage.start_proxy("client", "stranger", server.address, f"--verify-id={_DOMAIN}/service")
    for actor in (server, client):
        seen = actor.expect(_GENERATION)
        _say(f"   {actor.mode:6} proxy is {seen['id']}, until {seen['until'][11:19]} UTC")
    return Cast(server, client, stranger)


def _talk(stage: Stage, cast: Cast) -> PlainClient:
    _say("\n2. A caller speaks plain TCP to its proxy, and the service answers in plain TCP.")
    caller = stage.call(cast.client)
    _exchange(caller, "good morning")
    for actor, what in ((cast.server, "admitted"), (cast.client, "reached")):
        seen = actor.expect(_OPENING)
        _say(f"   {actor.mode:6} proxy {what} {seen['peer']} by the rule {seen['rule'].partition(':')[0]}")
    return caller


def _rotate(stage: Stage, cast: Cast, caller: PlainClient) -> None:
    _say("\n3. The identities rotate, while the connection stays open.")
    for actor in (cast.server, cast.client):
        seen = actor.expect(_GENERATION)
        _say(f"   {actor.mode:6} proxy is at generation {seen['number']}, until {seen['until'][11:19]} UTC")
    _exchange(caller, "still there?")
    fresh = stage.call(cast.client)
    _exchange(fresh, "and a new connection?")
    cast.server.expect(_OPENING)
    fresh.close()


def _refuse(stage: Stage, cast: Cast) -> None:
    _say("\n4. A stranger comes with a valid SVID of the same trust domain, whom no rule names.")
    stranger = stage.call(cast.stranger)
    answer = stranger.try_say("let me in")
    if answer is not None:
        raise DemoError(f"the stranger was served: {answer!a}")
    seen = cast.server.expect(_REFUSED)
    _say(f"   server proxy refused {_DOMAIN}/stranger inside the handshake: {seen['reason']}")
    _say("   the service never heard of it")
    stranger.close()


def _exchange(caller: PlainClient, text: str) -> None:
    answer = caller.try_say(text)
    if answer != f"the service heard: {text}":
        raise DemoError(f"{text!r} was answered by {answer!a}")
    _say(f'   "{text}" -> "{answer}"')


def _say(text: str) -> None:
    show(text + "\n")
