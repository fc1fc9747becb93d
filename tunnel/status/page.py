"""The page of the status port: its files, its events and their HTTP headers. Everything is read-only."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus
from pathlib import Path

from tunnel.errors import ConfigError, describe_os_error
from tunnel.http.connection import NOT_FOUND, READ_EXPECTED, READ_METHODS, Request, Response
from tunnel.lazy_dataclass import dataclass, replace

PREFIX = "/ui/"
_FILES = Path(__file__).with_name("page_files")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_EVENTS_TYPE = "text/event-stream; charset=utf-8"
# Scripts can be loaded from files of the page only, and can make no HTML from text: names in certificates are hostile.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_SECURITY = (
    ("Content-Security-Policy", _CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_OWN_SITE = (None, "same-origin", "none")  # values of Sec-Fetch-Site; none: the user has typed the URL
_REDIRECT = Response(status=HTTPStatus.FOUND, headers=(("Location", PREFIX.removeprefix("/")),))  # also behind a prefix
_FOREIGN = Response(b"403 events are for the page of this server only\n", HTTPStatus.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page, with the validator of caches."""

    body: bytes
    content_type: str
    tag: str


def load_page_files() -> dict[str, PageFile]:
    """Read the files of the page by their names; raises ConfigError."""
    try:
        return {path.name: _open_file(path) for path in _FILES.iterdir() if path.suffix in _TYPES}
    except OSError as error:
        raise ConfigError(f"--ui: cannot read the files of the page: {describe_os_error(error)}") from error


def _open_file(path: Path) -> PageFile:
    body = path.read_bytes()
    return PageFile(body, _TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


class Page:
    """Responds to all requests for the page; `open_events` makes a stream of server-sent events."""

    def __init__(self, files: dict[str, PageFile], open_events: Callable[[], AsyncGenerator[bytes, None]]) -> None:
        self._files = files
        self._open_events = open_events

    def has(self, path: str) -> bool:
        """Whether a path belongs to the page."""
        return path in ("/", PREFIX.rstrip("/")) or path.startswith(PREFIX)

    async def respond(self, request: Request) -> Response:
        """Return a file, the events, or why not."""
        response = self._find(request)
        return replace(response, headers=(*response.headers, *_SECURITY))

    def _find(self, request: Request) -> Response:
        if request.method not in READ_METHODS:
            return READ_EXPECTED
        if not request.path.startswith(PREFIX):
            return _REDIRECT
        name = request.path.removeprefix(PREFIX) or "index.html"
        if name == "events":
            return self._events(request)
        file = self._files.get(name)
        return NOT_FOUND if file is None else _send_file(file, request)

    def _events(self, request: Request) -> Response:
        if request.headers.get("sec-fetch-site") not in _OWN_SITE:  # a foreign page could occupy all streams
            return _FOREIGN
        headers = (("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))  # for nginx in front
        return Response(content_type=_EVENTS_TYPE, headers=headers, stream=self._open_events())


def _send_file(file: PageFile, request: Request) -> Response:
    headers = (("ETag", file.tag), ("Cache-Control", "no-cache"))
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.tag in known or "*" in known:
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(file.body, content_type=file.content_type, headers=headers)
