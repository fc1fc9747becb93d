"""The command line of `tunnel connect`.

Knows its flags; must not know how a connection comes about.
"""

from __future__ import annotations

from tunnel.config import proxy, tls
from tunnel.config.access import VERIFY
from tunnel.config.client_flags import IDENTITY, VERBOSE, as_client
from tunnel.config.model import ProxyConfig
from tunnel.config.parser import Arguments, Command, Group, option, word
from tunnel.config.values import parse_limit
from tunnel.net.address import parse_address

SERVER = word("HOST:PORT", "The server, which speaks mutual TLS; unix:PATH for a socket of this machine.", parse_address)

CLOSE_TIMEOUT = option(
    proxy.CLOSE_TIMEOUT.name,
    "Limit for silence after the input has ended; default 24h: whoever asks waits for the answer.",
    parse_limit,
    86_400.0,
    placeholder="TIME",
)

COMMAND = Command(
    "connect",
    "Join standard input and output to one authenticated connection.",
    (
        Group("Which server is meant: with the Workload API at least one of these, joined by or", VERIFY.admitting()),
        IDENTITY,
        Group("The way there", (proxy.SERVER_NAME, proxy.PROXY)),
        Group("Limits", (proxy.CONNECT_TIMEOUT, CLOSE_TIMEOUT, *tls.FLAGS)),
        Group("The process", (VERBOSE, proxy.DISABLE_LANDLOCK)),
    ),
    """\
The end of the input is passed on, and the command ends when the server has ended. It says
nothing unless something goes wrong: then it is one line on standard error, and exit code 1.

Examples:
  echo PING | tunnel connect --verify-id spiffe://example.org/cache cache.example.org:8443
  ssh -o 'ProxyCommand=tunnel connect --verify-id spiffe://example.org/%h %h:8022' \\
      build.example.org
""",
    words=(SERVER,),
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> ProxyConfig:
    """The connection that is wanted; raises ConfigError."""
    return proxy.build_client(as_client(arguments, {proxy.CLOSE_TIMEOUT: arguments[CLOSE_TIMEOUT]}), None, arguments[SERVER])
