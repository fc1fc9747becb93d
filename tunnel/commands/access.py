"""`tunnel access explain`: print which access rule of a listener decides on a peer, and why."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tunnel.cli.command import Arguments, Command, Group, option, positional, repeated, switch
from tunnel.cli.output import print_output
from tunnel.config.values import or_none, parse_domain, parse_id, parse_ip, parse_name
from tunnel.errors import ConfigError, quote
from tunnel.ip_address import IpAddress
from tunnel.lazy_dataclass import dataclass
from tunnel.spiffe.ids import SCHEME, SpiffeId, TrustDomain

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.config.model import ListenerConfig, ProcessConfig
    from tunnel.pkix.certificate import Certificate

PEER = positional(
    "PEER", "SPIFFE ID of the peer, or the file with its certificate: PEM, DER, or - for standard input", parse_name
)
CONFIG = repeated("config", "Configuration file, or a directory with *.toml files; repeatable", parse_name, placeholder="FILE")
LISTENER = option(
    "listener",
    "Name of the listener; can be left out if there is only one",
    or_none(parse_name),
    None,
    placeholder="NAME",
)
SOURCE_IP = option("source", "Address of the client, for rules on it", or_none(parse_ip), None, placeholder="IP")
OWN = option(
    "own-trust-domain",
    "Our own trust domain, for rules that name none; not needed if the file has the SPIFFE ID of the listener's identity",
    or_none(parse_domain),
    None,
    placeholder="NAME",
)
JSON = switch("json", "Print one JSON object")

COMMAND = Command(
    "access explain",
    "Print which access rule of a listener decides on a peer, and why.",
    (Group("Listener", (CONFIG, LISTENER)), Group("Connection", (SOURCE_IP, OWN)), Group("Output", (JSON,))),
    """\
A certificate is judged by what it says: its certification path is not verified. Nothing is
contacted, and a policy is not evaluated. Exit code: 0 if the peer is admitted, else 1.

Examples:
  tunnel access explain --config tunnel.toml --listener redis spiffe://example.org/web/1
  tunnel access explain --config tunnel.toml --listener redis --source 10.0.0.7 peer.pem
""",
    (PEER,),
)
COMMANDS = (COMMAND,)


@dataclass(frozen=True, slots=True)
class ExplainConfig:
    """One connection to explain, by the access rules of one listener; `peer` is an ID, or the name of a file."""

    files: tuple[str, ...]
    listener: str | None
    peer: SpiffeId | str
    source: IpAddress | None
    own: TrustDomain | None
    is_json: bool


def build(arguments: Arguments) -> ExplainConfig:
    """The configuration; raises ConfigError."""
    if not arguments[CONFIG]:
        raise ConfigError(f"--{CONFIG.name} is required; expected a configuration file")
    peer = arguments[PEER]
    return ExplainConfig(
        arguments[CONFIG],
        arguments[LISTENER],
        parse_id(peer) if peer.startswith(SCHEME) else peer,
        arguments[SOURCE_IP],
        arguments[OWN],
        arguments[JSON],
    )


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the explanation; 0 if the peer is admitted, else 1. Raises TunnelError for a wrong line or file."""
    config = build(arguments)
    from tunnel.config.file.loader import load_config

    return print_explanation(config, load_config(config.files))


def print_explanation(config: ExplainConfig, process: ProcessConfig) -> int:
    """Print the explanation, and return the exit code; raises ConfigError or IdentityError."""
    from tunnel.check.access import Decision, Question, explain_access

    listener = find_listener(process.listeners, config.listener)
    who = config.peer if isinstance(config.peer, SpiffeId) else _read_leaf(config.peer)
    found = explain_access(listener, Question(who, datetime.now(UTC), config.source, config.own))
    print_output(found.encode_json() if config.is_json else found.encode_text())
    return 0 if found.decision is Decision.ADMITTED else 1


def find_listener(listeners: Sequence[ListenerConfig], name: str | None) -> ListenerConfig:
    """The listener with this name, or the only one; raises ConfigError."""
    if name is None and len(listeners) == 1:
        return listeners[0]
    names = ", ".join(listener.name for listener in listeners)
    if name is None:
        raise ConfigError(f"--{LISTENER.name} is required with several listeners; expected one of {names}")
    found = next((listener for listener in listeners if listener.name == name), None)
    if found is None:
        raise ConfigError(f"--{LISTENER.name}: unknown listener {quote(name)}; expected one of {names}")
    return found


def _read_leaf(name: str) -> Certificate:
    from tunnel.check.svid_files import read_path

    return read_path(name)[0]
