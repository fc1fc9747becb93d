"""The steps of `tunnel demo`; it reads only what an operator can read: bytes and log lines."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tunnel.cli.output import print_message, print_output
from tunnel.commands.demo.command import DemoConfig
from tunnel.commands.demo.processes import DemoError, DemoProcess, DemoProcesses, PlainClient
from tunnel.lazy_dataclass import dataclass

_DOMAIN = "spiffe://demo.test"
_DIAGRAM = """\
  client --plain--> client proxy ==mutual TLS==> server proxy --plain--> service
                    {domain}/client               {domain}/service
"""
_GENERATION = re.compile(r"identity updated: spiffe_id=(?P<id>\S+) generation=(?P<number>\d+) expires_at=(?P<until>\S+)")
_OPENING = re.compile(r"opening pipe: .* peer=(?P<peer>\S+) rule=(?P<rule>\S+)")
_REFUSED = re.compile(r"error on TLS handshake from .* reason=(?P<reason>\S+)")


@dataclass(frozen=True)
class DemoProxies:
    """The proxies; `other` is a client proxy that no rule of the server admits."""

    server: DemoProcess
    client: DemoProcess
    other: DemoProcess


def show_demo(config: DemoConfig) -> int:
    """Run all steps; 0 if every step succeeded, else 1 with one line on standard error."""
    began = time.monotonic()
    try:
        with ExitStack() as resources:
            directory = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="tunnel-demo-")))
            _run_steps(DemoProcesses(directory, resources), config)
    except DemoError as error:
        print_message(f"demo: error: {error}")
        return 1
    _print(
        "\nSummary: both sides authenticated each other and checked their access rules; identities rotated without\n"
        "closing a connection; a client without a rule was refused before the service got a byte. Service and client\n"
        "were not changed.\n"
        f"It took {time.monotonic() - began:.0f} seconds; no process is left, and no key was written to disk."
    )
    _print("Next: 'tunnel help server' and 'tunnel help client'; 'tunnel dev' serves such identities for your own tests.")
    return 0


def _run_steps(processes: DemoProcesses, config: DemoConfig) -> None:
    _print("A plain TCP service gets a SPIFFE identity. Everything runs on this machine.\n")
    _print(_DIAGRAM.format(domain=_DOMAIN))
    proxies = _start(processes, config)
    client = _connect(processes, proxies)
    _rotate(processes, proxies, client)
    _refuse(processes, proxies)
    client.close()


def _start(processes: DemoProcesses, config: DemoConfig) -> DemoProxies:
    _print("1. A Workload API for development issues identities, and the proxies get theirs.")
    names = ("service", "client", "other")
    processes.start_workload_api({name: f"{_DOMAIN}/{name}" for name in names}, config.rotate)
    service = processes.start_service()
    server = processes.start_proxy("server", "service", f"127.0.0.1:{service}", f"--allow-id={_DOMAIN}/client")
    client = processes.start_proxy("client", "client", server.address, f"--verify-id={_DOMAIN}/service")
    other = processes.start_proxy("client", "other", server.address, f"--verify-id={_DOMAIN}/service")
    for process in (server, client):
        seen = process.expect(_GENERATION)
        _print(f"   {process.mode:6} proxy is {seen['id']}, until {seen['until'][11:19]} UTC")
    return DemoProxies(server, client, other)


def _connect(processes: DemoProcesses, proxies: DemoProxies) -> PlainClient:
    _print("\n2. A client sends plain TCP to its proxy, and the service answers in plain TCP.")
    client = processes.connect(proxies.client)
    _exchange(client, "first message")
    for process, what in ((proxies.server, "admitted"), (proxies.client, "reached")):
        seen = process.expect(_OPENING)
        _print(f"   {process.mode:6} proxy {what} {seen['peer']} by the rule {seen['rule'].partition(':')[0]}")
    return client


def _rotate(processes: DemoProcesses, proxies: DemoProxies, client: PlainClient) -> None:
    _print("\n3. The identities rotate, while the connection stays open.")
    for process in (proxies.server, proxies.client):
        seen = process.expect(_GENERATION)
        _print(f"   {process.mode:6} proxy is at generation {seen['number']}, until {seen['until'][11:19]} UTC")
    _exchange(client, "on the old connection")
    fresh = processes.connect(proxies.client)
    _exchange(fresh, "on a new connection")
    proxies.server.expect(_OPENING)
    fresh.close()


def _refuse(processes: DemoProcesses, proxies: DemoProxies) -> None:
    _print("\n4. Another client has a valid SVID of the same trust domain, but no rule admits it.")
    client = processes.connect(proxies.other)
    answer = client.exchange("a message")
    if answer is not None:
        raise DemoError(f"the client without a rule got an answer: {answer!a}")
    seen = proxies.server.expect(_REFUSED)
    _print(f"   server proxy refused {_DOMAIN}/other inside the handshake: {seen['reason']}")
    _print("   the service got no connection")
    client.close()


def _exchange(client: PlainClient, text: str) -> None:
    answer = client.exchange(text)
    if answer != f"the service received: {text}":
        raise DemoError(f"{text!r} was answered by {answer!a}")
    _print(f'   "{text}" -> "{answer}"')


def _print(text: str) -> None:
    print_output(text + "\n")
