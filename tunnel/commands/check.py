"""`tunnel check server` and `tunnel check client`: report what would prevent a start, and start nothing."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import suppress

from tunnel.cli.command import Arguments, Command, Group, option, switch
from tunnel.cli.output import print_if_interactive, print_output
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy import limits, source
from tunnel.commands.proxy.access import ALLOW, VERIFY, access_warnings
from tunnel.commands.proxy.build import build as build_proxy
from tunnel.commands.proxy.build import check_line
from tunnel.config.model import (
    INTERACTIVE_TIMEOUT,
    Access,
    CheckConfig,
    ListenerConfig,
    NoIdentity,
    ProcessConfig,
    Source,
    WorkloadApi,
)
from tunnel.config.values import parse_positive_duration
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import replace
from tunnel.spiffe.endpoint import ENVIRONMENT
from tunnel.wire.outbound import parse_outbound

JSON = switch("json", "Print one JSON document instead of lines")
WAIT = option(  # --use-workload-api-timeout is the proxy's
    "wait",
    "Maximum time to wait for an identity",
    parse_positive_duration,
    INTERACTIVE_TIMEOUT,
    placeholder="TIME",
    aliases=("timeout",),
)
_REPORT = Group("Report", (JSON, WAIT))
_DETAIL = """\
Takes a command line of '{mode}', checks everything that it needs, and starts nothing. Each line of
the report begins with the result; after an arrow it shows what to do:

  ok  works            ??  works, may be unintended
  !!  does not work    --  not checked, and why

Run it where the proxy will run: as the same user, in the same container, because an agent
identifies a process by these attributes. It changes nothing; {traffic}
Exit code: 0 if no line begins with '!!', else 1.

Examples:
  tunnel check {example}
"""

SERVER = Command(
    "check server",
    "Check whether 'server' with these flags would work, and report what to change if not.",
    (_REPORT, *proxy.SERVER.groups),
    _DETAIL.format(
        mode="server",
        traffic="the target gets one connection\nthat is closed at once.",
        example="""\
server --use-workload-api-addr unix:///run/spire/agent.sock --listen :8443 \\
      --target localhost:6379 --allow-id spiffe://example.org/cache-user""",
    ),
)
CLIENT = Command(
    "check client",
    "Check whether 'client' with these flags would work, which server it would reach, and report what to change if not.",
    (_REPORT, *proxy.CLIENT.groups),
    _DETAIL.format(
        mode="client",
        traffic="the server gets one handshake,\nand its target one connection that is closed at once.",
        example="""\
client --use-workload-api-addr unix:///run/spire/agent.sock --listen localhost:6379 \\
      --target cache.example.org:8443 --verify-id spiffe://example.org/cache""",
    ),
)
COMMANDS = (SERVER, CLIENT)


def build(command: Command, arguments: Arguments) -> CheckConfig:
    """The part of a line that can be checked, with the error of the checked command if it refuses the line."""
    mode = proxy.SERVER if command is SERVER else proxy.CLIENT
    try:
        check_line(arguments)
        config = build_proxy(mode, arguments)
    except ConfigError as error:
        return _build_partial(arguments, error, is_server=mode is proxy.SERVER)
    (listener,) = config.listeners
    return CheckConfig(replace(config, listeners=(replace(listener, warnings=_other_warnings(listener)),)))


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the report; 0 if no check fails, else 1."""
    line = build(command, arguments)
    from tunnel.check.diagnosis import diagnose
    from tunnel.check.finding import encode_line, encode_report, encode_summary, has_no_problem
    from tunnel.check.preflight import Preflight

    preflight = Preflight(line, environ, arguments[WAIT], origin_of(arguments), print_if_interactive)
    findings = []
    for finding in diagnose(preflight):
        findings.append(finding)
        if not arguments[JSON]:
            print_output(encode_line(finding) + "\n")  # each at once: the next check can take long
    print_output((encode_report(command.name, findings) if arguments[JSON] else encode_summary(findings)) + "\n")
    return 0 if has_no_problem(findings) else 1


def origin_of(arguments: Arguments) -> str:
    """The flag or the environment variable with the address of the Workload API."""
    return f"--{source.API_ADDRESS.name}" if arguments.is_given(source.API_ADDRESS) else f"${ENVIRONMENT}"


def _build_partial(arguments: Arguments, refusal: ConfigError, *, is_server: bool) -> CheckConfig:
    """Listener, target and identity source of a line that is refused for another reason, without access rules."""
    identity: Source = NoIdentity()
    with suppress(ConfigError):
        identity = source.build_source(arguments, is_server=is_server, is_mutual=True)
    outbound = None
    is_via_proxy = not is_server and bool(arguments[proxy.PROXY])
    if is_via_proxy:
        with suppress(ConfigError):
            outbound = parse_outbound(arguments[proxy.PROXY])
    config = ListenerConfig(
        name="",
        is_server=is_server,
        listen=arguments[proxy.LISTEN],
        targets=(arguments[proxy.TARGET],),
        identity=source.build_identity(arguments, identity),
        access=Access(()),
        server_name="" if is_server else arguments[proxy.SERVER_NAME],
        outbound=outbound,
        connect_timeout=arguments[limits.CONNECT_TIMEOUT],
    )
    process = ProcessConfig((config,), is_confined=not arguments[limits.DISABLE_LANDLOCK])
    return CheckConfig(process, refusal, is_route_known=is_via_proxy == (outbound is not None))


def _other_warnings(config: ListenerConfig) -> tuple[str, ...]:
    """The warnings that are not about access rules: the check describes each rule itself."""
    if not isinstance(config.identity.source, WorkloadApi):
        return config.warnings
    about_rules = access_warnings(config.access, ALLOW if config.is_server else VERIFY)
    return tuple(warning for warning in config.warnings if warning not in about_rules)
