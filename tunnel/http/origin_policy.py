"""Protection of the status port against requests by foreign web pages: DNS rebinding and cross-site requests."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from tunnel.errors import WebRefusal
from tunnel.http.connection import Request, Response
from tunnel.ip_address import parse_ip_address, unmap_ipv4
from tunnel.lazy_dataclass import dataclass
from tunnel.log import escape

_AUTHORITY = re.compile(r"(?P<host>\[[^\]@\s]*\]|[^:@/\\?#\[\]\s]*)(?::[0-9]*)?")
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}  # RFC 9110, 9.2.1
_SAME_SITE = {"same-origin", "none"}  # none: the user has typed the URL
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """The rules for the requests to one listener."""

    names: frozenset[str]  # in lower case: host names of this server; IP addresses are always accepted
    checks_host: bool  # of every request, else only of requests by web pages that change state
    schemes: tuple[str, ...]  # of our own origins

    def refusal(self, request: Request) -> WebRefusal | None:
        """The reason to refuse a request; None if it is accepted."""
        if self.checks_host and not self._is_ours(request):
            return WebRefusal.HOST
        if request.method not in _SAFE_METHODS and self._is_cross_site(request):
            return WebRefusal.CROSS_SITE
        return None

    def _is_ours(self, request: Request) -> bool:
        """Whether every host in a request is ours; a client that sends none is not a browser."""
        named = (request.authority, request.headers.get("host", ""))
        return all(self._is_own_host(authority) for authority in named if authority)

    def _is_own_host(self, authority: str) -> bool:
        match = _AUTHORITY.fullmatch(authority)
        if match is None:
            return _is_ip_address(authority)  # IPv6 without brackets
        host = match["host"].lower().removesuffix(".")
        return host in self.names or _is_ip_address(host.removeprefix("[").removesuffix("]"))

    def _is_cross_site(self, request: Request) -> bool:
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if origin is None and site is None:
            return False  # not by a web page
        if site is not None and site.strip().lower() not in _SAME_SITE:
            return True
        if origin is not None and not self._is_own_origin(origin, request.headers.get("host", "")):
            return True
        return bool(self.names) and not self._is_ours(request)  # with DNS rebinding the origin equals the Host

    def _is_own_origin(self, origin: str, host: str) -> bool:
        parsed = _parse_origin(origin)
        return parsed is not None and any(parsed == _parse_origin(f"{scheme}://{host}") for scheme in self.schemes)


OpenOriginPolicy = Callable[[socket.socket], OriginPolicy]  # for a listening socket


def plan_origin_policy(allowed: Iterable[str], *, is_encrypted: bool) -> OpenOriginPolicy:
    """The rules with the host names that the operator allows; on a loopback address the Host is always checked."""
    given = frozenset(name.lower().removesuffix(".") for name in allowed)
    ours = socket.gethostname().lower()
    names = given | {"localhost", ours, ours.partition(".")[0]}

    def open_origin_policy(listener: socket.socket) -> OriginPolicy:
        if listener.family == socket.AF_UNIX:  # no browser connects to it; a reverse proxy may, and it may use TLS
            return OriginPolicy(frozenset(), checks_host=False, schemes=tuple(_PORTS))
        is_checked = bool(given) or _is_loopback(listener.getsockname()[0])
        return OriginPolicy(names, is_checked, ("https" if is_encrypted else "http",))

    return open_origin_policy


def refuse(why: WebRefusal, request: Request) -> tuple[Response, str]:
    """The response to a refused request, and the detail for the log."""
    if why is WebRefusal.HOST:
        host = escape(request.authority or request.headers.get("host", ""))
        detail = f'host "{host}" is not a name of this status port'
        hint = "use an IP address or localhost, or allow the name by --status-allow-host"
        return Response(f"421 {detail}; {hint}\n".encode(), HTTPStatus.MISDIRECTED_REQUEST), detail
    origin = escape(request.headers.get("origin", ""))
    detail = f'{escape(request.method)} {escape(request.path)} from another site, origin "{origin}"'
    return Response(b"403 cross-site requests are refused\n", HTTPStatus.FORBIDDEN), detail


def _parse_origin(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for `null` and for an invalid origin."""
    try:
        parts = urlsplit(text)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    if not parts.hostname or port is None or parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return parts.scheme, parts.hostname.removesuffix("."), port


def _is_ip_address(host: str) -> bool:
    return parse_ip_address(host.partition("%")[0]) is not None


def _is_loopback(host: str) -> bool:
    address = parse_ip_address(host.partition("%")[0])
    return address is not None and unmap_ipv4(address).is_loopback
