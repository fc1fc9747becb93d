"""What the status port refuses because a foreign web page has caused it: DNS rebinding and cross-site requests."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from tunnel.errors import WebRefusal
from tunnel.http.connection import Request, Response
from tunnel.ip_address import parse_ip_address, unmap_ipv4
from tunnel.log import escape

_AUTHORITY = re.compile(r"(?P<host>\[[^\]@\s]*\]|[^:@/\\?#\[\]\s]*)(?::[0-9]*)?")
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}  # RFC 9110, 9.2.1: they change nothing here
_SAME_SITE = {"same-origin", "none"}  # none: the user has typed the address
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """The rules for the requests of one listener."""

    names: frozenset[str]  # in lower case: hosts that are this status port, besides IP addresses
    checks_host: bool  # for every request, else only for those of web pages that change state
    schemes: tuple[str, ...]  # of the origins that are ours

    def refusal(self, request: Request) -> WebRefusal | None:
        """Why a request is refused; None if it is not."""
        if self.checks_host and not self._is_ours(request):
            return WebRefusal.HOST
        if request.method not in _SAFE_METHODS and self._is_cross_site(request):
            return WebRefusal.CROSS_SITE
        return None

    def _is_ours(self, request: Request) -> bool:
        """Whether every host that a request names is ours; a client that names none is no browser."""
        named = (request.authority, request.headers.get("host", ""))
        return all(self._knows(authority) for authority in named if authority)

    def _knows(self, authority: str) -> bool:
        match = _AUTHORITY.fullmatch(authority)
        if match is None:
            return _is_ip_address(authority)  # IPv6 without brackets
        host = match["host"].lower().removesuffix(".")
        return host in self.names or _is_ip_address(host.removeprefix("[").removesuffix("]"))

    def _is_cross_site(self, request: Request) -> bool:
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if origin is None and site is None:
            return False  # not from a web page
        if site is not None and site.strip().lower() not in _SAME_SITE:
            return True
        if origin is not None and not self._is_own(origin, request.headers.get("host", "")):
            return True
        return bool(self.names) and not self._is_ours(request)  # an origin by DNS rebinding is that of its Host

    def _is_own(self, origin: str, host: str) -> bool:
        parsed = _parse_origin(origin)
        return parsed is not None and any(parsed == _parse_origin(f"{scheme}://{host}") for scheme in self.schemes)


OpenOriginPolicy = Callable[[socket.socket], OriginPolicy]  # for a listening socket


def plan_origin_policy(allowed: Iterable[str], *, is_encrypted: bool) -> OpenOriginPolicy:
    """The rules of a status port whose operator allows these names for it; on loopback the Host is always checked."""
    given = frozenset(name.lower().removesuffix(".") for name in allowed)
    ours = socket.gethostname().lower()
    names = given | {"localhost", ours, ours.partition(".")[0]}

    def open_origin_policy(listener: socket.socket) -> OriginPolicy:
        if listener.family == socket.AF_UNIX:  # no browser reaches it: a proxy may, which speaks TLS itself
            return OriginPolicy(frozenset(), checks_host=False, schemes=tuple(_PORTS))
        is_checked = bool(given) or _is_loopback(listener.getsockname()[0])
        return OriginPolicy(names, is_checked, ("https" if is_encrypted else "http",))

    return open_origin_policy


def refuse(why: WebRefusal, request: Request) -> tuple[Response, str]:
    """The answer to a request that is refused, and the words for the log."""
    if why is WebRefusal.HOST:
        host = escape(request.authority or request.headers.get("host", ""))
        detail = f'host "{host}" is not a name of this status port'
        hint = "use an IP address or localhost, or allow the name by --status-allow-host"
        return Response(f"421 {detail}; {hint}\n".encode(), HTTPStatus.MISDIRECTED_REQUEST), detail
    origin = escape(request.headers.get("origin", ""))
    detail = f'{escape(request.method)} {escape(request.path)} from another site, origin "{origin}"'
    return Response(b"403 cross-site requests are not served here\n", HTTPStatus.FORBIDDEN), detail


def _parse_origin(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for `null` and for what is no origin."""
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
