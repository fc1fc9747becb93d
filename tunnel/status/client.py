"""Client of the status port: queries one, and reads the status document that it returns."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from tunnel.config.status_url import STATUS_PATH, StatusUrl
from tunnel.errors import ConfigError, TargetError, TargetFault, TlsError, TlsFault, WireError, WireFault, describe_os_error
from tunnel.http.client import HttpExchange, ReceivedResponse, empty_context, fetch_blocking
from tunnel.lazy_dataclass import dataclass
from tunnel.net.address import Address, TcpAddress
from tunnel.net.race import connect_first
from tunnel.net.sockets import resolve

_MAX_DOCUMENT = 4 << 20  # bytes
_MAX_CHECKS = 16 * 1024  # bytes of the answer of /readyz
_FAILED = re.compile(r"^\[-\](.*)", re.MULTILINE)
# OpenSSL's reasons, which depend on its version, if the server does not use TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
_WRONG_PROTOCOL = b"Client sent an HTTP request to an HTTPS server"  # of Go's server, and of our status port


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """The response of a status port; the document is None if the body is not a JSON object."""

    code: int
    document: Mapping[str, Any] | None
    failed: tuple[str, ...] = ()  # checks of /livez and /readyz

    def problem(self, path: str = STATUS_PATH) -> str:
        """Why the process is not healthy; empty if it is. For a path other than the status document's, status 200 is enough."""
        document = self.document or {}
        is_ok = document.get("ok", path != STATUS_PATH)
        if self.code == HTTPStatus.OK and is_ok is True:
            return ""
        if "ok" not in document and path != STATUS_PATH:
            return f"critical: {', '.join(self.failed)}" if self.failed else self.describe_code()
        if "ok" not in document:
            what = "without a status document: not a status port of tunnel? (a health port has /readyz)"
            return f"{self.describe_code()} {what}"
        found = [str(document[key]) for key in ("message",) if key in document]
        if not document.get("backend_ok", True):
            found.append(f"backend: {document.get('backend_error', 'critical')}")
        if "identity_error" in document:
            found.append(str(document["identity_error"]))
        return f"critical: {', '.join(found) or self.describe_code()}"

    def describe_code(self) -> str:
        """The status code with its phrase."""
        try:
            return f"{self.code} {HTTPStatus(self.code).phrase}"
        except ValueError:
            return str(self.code)

    def summary(self) -> str:
        """The phase of the process and its identity, in one line."""
        document = self.document or {}
        identity = [f"{document['spiffe_id']} until {document.get('not_after')}"] if "spiffe_id" in document else []
        return ", ".join(["ok", *(str(document[key]) for key in ("message",) if key in document), *identity])


def open_client_context(cacert: str) -> ssl.SSLContext:
    """Verify the server by the certificates of a PEM file, or do not verify it if there is none; raises ConfigError."""
    context = empty_context()
    context.check_hostname = False  # an SVID has a SPIFFE ID and need not have a host name (X509-SVID, section 2)
    if not cacert:
        context.verify_mode = ssl.CERT_NONE  # loopback only: see tunnel.commands.health
        return context
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate may be the anchor, as with a proxy's --cacert
    try:
        context.load_verify_locations(cacert)
    except ssl.SSLError as error:
        raise ConfigError(f"--cacert: {cacert!a} holds no certificate in PEM") from error
    except OSError as error:
        raise ConfigError(f"--cacert: {cacert!a}: {describe_os_error(error)}") from error
    return context


def query_status(url: StatusUrl, context: ssl.SSLContext, timeout: float) -> StatusAnswer:
    """Query a status port; `timeout`, in seconds, limits each step, and the caller limits the whole.

    Raises TargetError, TlsError or WireError if there is no response. If the address has no scheme and the server does not
    use TLS, the query is repeated in plain HTTP, unless the server must be verified.
    """
    if url.scheme == "http":
        return _query(url, None, timeout)
    try:
        return _query(url, context, timeout)
    except TlsError as error:
        if error.reason is not TlsFault.PROTOCOL or url.scheme or context.verify_mode is not ssl.CERT_NONE:
            raise
    return _query(url, None, timeout)


def _query(url: StatusUrl, context: ssl.SSLContext | None, timeout: float) -> StatusAnswer:
    try:
        response = _fetch(url, context, timeout)
    except ssl.SSLError as error:
        raise _tls_error(error) from error
    except TimeoutError as error:
        raise TargetError(TargetFault.TIMEOUT, f"no response within {timeout:g}s") from error
    except OSError as error:
        raise TargetError(TargetFault.CLOSED, f"no response: {describe_os_error(error)}") from error
    except WireError as error:
        if error.reason is WireFault.TRUNCATED:
            raise TargetError(TargetFault.CLOSED, f"no response: {error}") from error
        raise WireError(error.reason, f"response is not HTTP: {str(error)[:80]!a}") from error
    if context is None and response.body.startswith(_WRONG_PROTOCOL):
        raise TlsError(TlsFault.REFUSED, "the server uses HTTPS: write https://, or no scheme")
    if len(response.body) >= _MAX_DOCUMENT:
        raise WireError(WireFault.TOO_LARGE, f"response is larger than {_MAX_DOCUMENT >> 20} MiB")
    failed = _FAILED.findall(response.body[:_MAX_CHECKS].decode(errors="replace"))
    return StatusAnswer(response.status, _parse_document(response.body), tuple(failed))


def _fetch(url: StatusUrl, context: ssl.SSLContext | None, timeout: float) -> ReceivedResponse:
    exchange = HttpExchange("GET", url.path, {"Host": _authority(url.address)}, max_body=_MAX_DOCUMENT)
    sock = connect_first(resolve(url.address), timeout)
    try:
        sock.settimeout(timeout)
        if context is not None:
            sock = context.wrap_socket(sock)
        return fetch_blocking(sock, exchange, timeout)
    finally:
        sock.close()


def _authority(address: Address) -> str:
    is_name = isinstance(address, TcpAddress) and bool(address.host) and str(address).isascii()
    return str(address) if is_name else "localhost"


def _tls_error(error: ssl.SSLError) -> TlsError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsError(TlsFault.REFUSED, f"the certificate is not by an authority in --cacert: {error.verify_message}")
    if error.reason in _NO_TLS:
        return TlsError(TlsFault.PROTOCOL, "the server does not use TLS: write http:// for plain HTTP")
    return TlsError(TlsFault.CLOSED, f"TLS handshake failed: {error.reason or describe_os_error(error)}".lower())


def _parse_document(body: bytes) -> Mapping[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
