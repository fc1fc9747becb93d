"""The query for the overview, which `tunnel status` and `tunnel top` share."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from tunnel.cli.command import Arguments, option, positional
from tunnel.commands.status_query import MAX_LINE, StatusQuery, build_query, own_status_ports
from tunnel.config.status_url import STATUS_PATH, StatusUrl, parse_status_url
from tunnel.config.values import parse_text
from tunnel.errors import ConfigError, WireError, WireFault, invalid_value
from tunnel.lazy_dataclass import replace
from tunnel.status.overview_reading import OVERVIEW_PATH, to_ascii

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.status.client import StatusAnswer


def parse_place(text: str) -> StatusUrl:
    """The address of a status port, without a path; raises ConfigError."""
    url = parse_status_url(text)
    if url.path != STATUS_PATH:
        raise invalid_value("address", text, "it has a path", "HOST:PORT or unix:PATH")
    return url


ADDRESS = positional(
    "ADDR",
    "Status port: the value of the proxy's --status, [http://|https://]HOST:PORT or unix:PATH",
    parse_place,
    required=False,
    default_text="the status port of process 1, for use in a container",
)
LISTENER = option("listener", "Show one listener only", parse_text, "", placeholder="NAME")


def build_overview_query(arguments: Arguments) -> tuple[str, StatusQuery]:
    """The status port as printable text, and the query for its overview; raises ConfigError."""
    given = arguments[ADDRESS]
    url = given or _only(own_status_ports())
    name = arguments[LISTENER]
    path = f"{OVERVIEW_PATH}?listener={quote_plus(name)}" if name else OVERVIEW_PATH
    query = build_query(arguments, url, is_own=given is None)
    return to_ascii(str(url), MAX_LINE), replace(query, url=replace(url, path=path))


def _only(ports: tuple[StatusUrl, ...]) -> StatusUrl:
    if len(ports) == 1:
        return ports[0]
    if not ports:
        raise ConfigError("ADDR is missing: process 1 has no --status; expected HOST:PORT or unix:PATH")
    raise ConfigError(f"ADDR is missing: process 1 has several status ports; expected one of {', '.join(map(str, ports))}")


def document_of(answer: StatusAnswer, listener: str = "") -> Mapping[str, Any]:
    """The document of the answer; raises WireError if there is none."""
    if answer.code == HTTPStatus.OK and answer.document is not None:
        return answer.document
    if answer.code == HTTPStatus.NOT_FOUND:
        missing = f'no listener "{listener}", or no overview' if listener else "no overview"
        raise WireError(WireFault.MALFORMED, f"404 Not Found: {missing}; expected the address of --status, not of --health")
    raise WireError(WireFault.MALFORMED, f"{answer.describe_code()} without an overview; expected a status port of tunnel")
