"""`tunnel server` and `tunnel client`: forward connections with mutual TLS on the outside."""

from __future__ import annotations

from collections.abc import MutableMapping

from tunnel.cli.command import Arguments, Command, Group, option, required, switch
from tunnel.commands.proxy import acme, source, status
from tunnel.commands.proxy.access import ALLOW, VERIFY
from tunnel.commands.proxy.limits import LIMITS, PROCESS
from tunnel.commands.proxy.traces import TRACES
from tunnel.config.values import one_of, parse_text
from tunnel.net.address import parse_listen_address, parse_target
from tunnel.wire.proxy_v2 import HeaderMode

LISTEN = required(
    "listen",
    "Address to listen on: HOST:PORT, unix:PATH or systemd:NAME. Port 0 is any free port; several processes can share a port, "
    "which the log reports",
    parse_listen_address,
    placeholder="ADDR",
)
TARGET = required("target", "Address to forward to: HOST:PORT, unix:PATH or srv:NAME", parse_target, placeholder="ADDR")
UNSAFE_TARGET = switch("unsafe-target", "Allow a target on another machine: connections to it are not encrypted")
UNSAFE_LISTEN = switch("unsafe-listen", "Accept connections from other machines: they are not encrypted")
SKIP_RESOLVE = switch("skip-resolve", "Do not resolve --target at start")
PROXY_PROTOCOL = switch("proxy-protocol", "Send a PROXY protocol v2 header to the target: --proxy-protocol-mode=conn")
PROXY_MODE = option(
    "proxy-protocol-mode",
    "Send a PROXY protocol v2 header to the target: conn, with the addresses; tls, also SNI and TLS version; tls-full, also "
    "the client's certificate; spiffe, as tls and with the client's SPIFFE ID",
    one_of(*(mode.value for mode in HeaderMode)),
    "",
    placeholder="MODE",
)
SERVER_NAME = option(
    "override-server-name",
    "Server name to send (SNI) and to verify",
    parse_text,
    "",
    placeholder="NAME",
    default_text="the host of --target",
)
PROXY = option(
    "proxy",
    "Connect to the target through this proxy: http://HOST:PORT (CONNECT) or socks5://HOST:PORT",
    parse_text,
    "",
    placeholder="URL",
    aliases=("connect-proxy",),
)
SERVER_RULES = "Access rules: the server must match one; required with the Workload API"

SERVER = Command(
    "server",
    "Accept mutual TLS from clients that an access rule admits, and forward plain TCP to a local target.",
    (
        Group("Listener and target", (LISTEN, TARGET, UNSAFE_TARGET, SKIP_RESOLVE)),
        Group(
            "Access rules: a client must match one; at least one is required",
            (*ALLOW.admitting(), ALLOW.disable),
        ),
        Group("Identity and trust: exactly one identity source is required", (*source.FLAGS, *acme.FLAGS)),
        Group("PROXY protocol", (PROXY_PROTOCOL, PROXY_MODE)),
        LIMITS,
        Group("Status and metrics", (*status.FLAGS, status.TARGET_STATUS)),
        TRACES,
        PROCESS,
    ),
    """\
Examples:
  tunnel server --use-workload-api --listen 0.0.0.0:8443 --target localhost:6379 \\
      --allow-id spiffe://example.org/cache-user
  tunnel server --use-workload-api-addr unix:///run/spire/agent.sock --listen :8443 \\
      --target unix:/run/postgresql/.s.PGSQL.5432 --allow-uri 'spiffe://example.org/ns/prod/**'
  tunnel server --cert server.pem --key server-key.pem --cacert ca.pem --listen :8443 \\
      --target localhost:8080 --allow-cn client
""",
)
CLIENT = Command(
    "client",
    "Accept plain TCP on this machine, and forward it over mutual TLS to a server that an access rule accepts.",
    (
        Group("Listener and target", (LISTEN, TARGET, UNSAFE_LISTEN, SERVER_NAME, PROXY, SKIP_RESOLVE)),
        Group(SERVER_RULES, VERIFY.admitting()),
        Group("Identity and trust: exactly one identity source is required", (*source.FLAGS, VERIFY.disable)),
        LIMITS,
        Group("Status and metrics", status.FLAGS),
        TRACES,
        PROCESS,
    ),
    """\
With certificates on disk the host name of the target is always verified, in addition to the access
rules.

Examples:
  tunnel client --use-workload-api --listen localhost:6379 --target cache.example.org:8443 \\
      --verify-id spiffe://example.org/cache
  tunnel client --keystore client.p12 --cacert ca.pem --listen localhost:8080 \\
      --target web.example.org:8443
""",
)
COMMANDS = (SERVER, CLIENT)
# ghostunnel's app-level flags: they can also stand before the command.
GLOBAL_FLAGS = (*source.FLAGS, *LIMITS.flags, *status.FLAGS, *TRACES.flags, SKIP_RESOLVE, *PROCESS.flags)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Serve until a signal or an error; the exit code. Raises ConfigError for a line that `check_line` refuses."""
    from tunnel.commands.proxy.run import serve

    return serve(command, arguments, environ)
