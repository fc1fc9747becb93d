"""`tunnel check server` and `tunnel check client`: report what would prevent a start, and start nothing."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import replace

from tunnel.cli.output import say_to_person, show
from tunnel.cli.parser import Arguments, Command, Group, option, switch
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy import source as sources
from tunnel.commands.proxy.access import ALLOW, VERIFY, access_warnings
from tunnel.config.model import Access, Line, NoIdentity, ProxyConfig, Source, WorkloadApi
from tunnel.config.values import parse_positive_duration
from tunnel.errors import ConfigError
from tunnel.spiffe.endpoint import ENVIRONMENT
from tunnel.wire.outbound import parse_outbound

JSON = switch("json", "Print one JSON document in the place of lines.")
WAIT = option(  # the line's own --use-workload-api-timeout is the proxy's
    "wait",
    "How long to wait for an identity; default 15s.",
    parse_positive_duration,
    15.0,
    placeholder="TIME",
    aliases=("timeout",),
)
_REPORT = Group("The report", (JSON, WAIT))
_DETAIL = """\
Takes the line of '{mode}' as it stands, looks at everything that it needs, and starts nothing.
Each line of the report says ok, or behind an arrow what to do:

  ok  fine             ??  works, and may surprise
  !!  will not work    --  not looked at, and why

Run it where the proxy will run: as its user, in its container. An agent knows a process by such
things. Nothing is changed by it; {traffic}
Exit code: 0 when nothing is marked '!!', else 1.

Examples:
  tunnel check {example}
"""

SERVER = Command(
    "check server",
    "Look whether 'server' with these flags would work, and say what to do where not.",
    (_REPORT, *proxy.SERVER.groups),
    _DETAIL.format(
        mode="server",
        traffic="the target sees one connection that is closed\nat once.",
        example="""\
server --use-workload-api-addr unix:///run/spire/agent.sock --listen :8443 \\
      --target localhost:6379 --allow-id spiffe://example.org/cache-user""",
    ),
)
CLIENT = Command(
    "check client",
    "Look whether 'client' with these flags would work, whom it would meet, and say what to do where not.",
    (_REPORT, *proxy.CLIENT.groups),
    _DETAIL.format(
        mode="client",
        traffic="the server sees one handshake, and its target one\nconnection that is closed at once.",
        example="""\
client --use-workload-api-addr unix:///run/spire/agent.sock --listen localhost:6379 \\
      --target cache.example.org:8443 --verify-id spiffe://example.org/cache""",
    ),
)
COMMANDS = (SERVER, CLIENT)


def build(command: Command, arguments: Arguments) -> Line:
    """What can be looked at, and why the real command would refuse the line if it would."""
    mode = proxy.SERVER if command is SERVER else proxy.CLIENT
    try:
        proxy.check_line(arguments)
        config = proxy.build(mode, arguments)
    except ConfigError as error:
        return _build_rest(arguments, error, is_server=mode is proxy.SERVER)
    return Line(replace(config, warnings=_other_warnings(config)))


def origin_of(arguments: Arguments) -> str:
    """What named the address of the Workload API."""
    return f"--{sources.API_ADDRESS.name}" if arguments.is_given(sources.API_ADDRESS) else f"${ENVIRONMENT}"


def _build_rest(arguments: Arguments, refusal: ConfigError, *, is_server: bool) -> Line:
    """Listener, target and source of a line that is wrong elsewhere, with rules that admit nobody."""
    source: Source = NoIdentity()
    with suppress(ConfigError):
        source = sources.build_source(arguments, is_server=is_server, is_mutual=True)
    outbound = None
    is_via_proxy = not is_server and bool(arguments[proxy.PROXY])
    if is_via_proxy:
        with suppress(ConfigError):
            outbound = parse_outbound(arguments[proxy.PROXY])
    config = ProxyConfig(
        is_server=is_server,
        listen=arguments[proxy.LISTEN],
        target=arguments[proxy.TARGET],
        source=source,
        access=Access(()),
        ca_bundle=arguments[sources.CACERT],
        server_name="" if is_server else arguments[proxy.SERVER_NAME],
        outbound=outbound,
        connect_timeout=arguments[proxy.CONNECT_TIMEOUT],
        is_confined=not arguments[proxy.DISABLE_LANDLOCK],
    )
    return Line(config, refusal, is_way_known=is_via_proxy == (outbound is not None))


def _other_warnings(config: ProxyConfig) -> tuple[str, ...]:
    """Those that are not about rules: the check tells each rule in words."""
    if not isinstance(config.source, WorkloadApi):
        return config.warnings
    about_rules = access_warnings(config.access, ALLOW if config.is_server else VERIFY)
    return tuple(warning for warning in config.warnings if warning not in about_rules)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the report; 0 when a start would succeed as far as was seen, else 1."""
    line = build(command, arguments)
    from tunnel.check.case import Case
    from tunnel.check.diagnosis import diagnose
    from tunnel.check.report import encode_json, is_well, line_of, summary_of

    case = Case(line, environ, arguments[WAIT], origin_of(arguments), say_to_person)
    findings = []
    for finding in diagnose(case):
        findings.append(finding)
        if not arguments[JSON]:
            show(line_of(finding) + "\n")  # each at once: the next may take its time
    show((encode_json(command.name, findings) if arguments[JSON] else summary_of(findings)) + "\n")
    return 0 if is_well(findings) else 1
