"""The other side of the status port: ask one, and judge what it says.

Knows HTTP's and TLS's client side by the standard library alone, which is what a probe that runs every few seconds can
afford; must not know flags, nor how the answer is told.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunnel import __version__
from tunnel.config.status_url import STATUS_PATH, StatusUrl
from tunnel.errors import ConfigError, TargetError, TargetFault, TlsError, TlsFault, WireError, WireFault, describe_os_error
from tunnel.net.address import Address, TcpAddress
from tunnel.net.race import connect_first
from tunnel.net.sockets import resolve
from tunnel.status.trust import empty_context

_MOST = 1 << 20  # bytes of a document that are read
# What OpenSSL says, depending on its version, when the other side speaks another protocol.
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
_WRONG_PROTOCOL = b"Client sent an HTTP request to an HTTPS server"  # Go's words, which our status port has too


@dataclass(frozen=True, slots=True)
class Answer:
    """What a status port said; the document is None where the body is none."""

    code: int
    document: Mapping[str, Any] | None

    def fault(self, path: str = STATUS_PATH) -> str:
        """Why this does not say that all is well; empty if it does. Of another path than the status 200 is enough."""
        document = self.document or {}
        is_ok = document.get("ok", path != STATUS_PATH)
        if self.code == http.HTTPStatus.OK and is_ok is True:
            return ""
        if "ok" not in document and path != STATUS_PATH:
            return _describe(self.code)
        if "ok" not in document:
            return f"{_describe(self.code)} is no status document: is it a status port of tunnel?"
        found = [str(document[key]) for key in ("message",) if key in document]
        if not document.get("backend_ok", True):
            found.append(f"backend: {document.get('backend_error', 'critical')}")
        if "identity_error" in document:
            found.append(str(document["identity_error"]))
        return f"critical: {', '.join(found) or _describe(self.code)}"

    def summary(self) -> str:
        """Who is well, in a few words."""
        document = self.document or {}
        identity = [f"{document['spiffe_id']} until {document.get('not_after')}"] if "spiffe_id" in document else []
        return ", ".join(["ok", *(str(document[key]) for key in ("message",) if key in document), *identity])


def trust_of(cacert: str) -> ssl.SSLContext:
    """Whom to believe: certificates by an authority in that PEM file, or without one whoever answers; raises ConfigError."""
    context = empty_context()
    context.check_hostname = False  # an SVID has a SPIFFE ID, and no host name has to be in it (X509-SVID, section 2)
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


def ask(url: StatusUrl, trust: ssl.SSLContext, timeout: float) -> Answer:
    """Ask a status port; `timeout`, in seconds, limits each step and the caller the whole.

    Raises TargetError, TlsError or WireError where there is no answer. An address without a scheme that does not speak TLS
    is asked in plain HTTP, unless whoever answers has to be known.
    """
    if url.scheme == "http":
        return _ask(url, None, timeout)
    try:
        return _ask(url, trust, timeout)
    except TlsError as error:
        if error.reason is not TlsFault.PROTOCOL or url.scheme or trust.verify_mode is not ssl.CERT_NONE:
            raise
    return _ask(url, None, timeout)


def _ask(url: StatusUrl, trust: ssl.SSLContext | None, timeout: float) -> Answer:
    connection = _HttpConnection(url.address, trust, timeout)
    try:
        connection.request("GET", url.path, headers=_headers(url.address))
        with connection.getresponse() as response:
            body = response.read(_MOST)
    except ssl.SSLError as error:
        raise _tls_error(error) from error
    except TimeoutError as error:
        raise TargetError(TargetFault.TIMEOUT, f"no answer within {timeout:g}s") from error
    except OSError as error:
        raise TargetError(TargetFault.CLOSED, f"no answer: {describe_os_error(error)}") from error
    except http.client.HTTPException as error:
        raise WireError(WireFault.MALFORMED, f"what came is no answer in HTTP: {str(error)[:80]!a}") from error
    finally:
        connection.close()
    if trust is None and body.startswith(_WRONG_PROTOCOL):
        raise TlsError(TlsFault.REFUSED, "it speaks HTTPS: write https://, or no scheme")
    return Answer(response.status, _parse_document(body))


def _headers(address: Address) -> dict[str, str]:
    named = isinstance(address, TcpAddress) and bool(address.host)
    host = str(address) if named and str(address).isascii() else "localhost"
    return {"Host": host, "User-Agent": f"tunnel/{__version__}", "Connection": "close"}


class _HttpConnection(http.client.HTTPConnection):
    """HTTP over whatever an address of ours leads to."""

    def __init__(self, address: Address, trust: ssl.SSLContext | None, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._address = address
        self._trust = trust
        self._limit = timeout

    def connect(self) -> None:
        """Reach the first endpoint that answers, and shake hands there if need be."""
        sock = connect_first(resolve(self._address), self._limit)
        sock.settimeout(self._limit)
        self.sock = sock if self._trust is None else self._trust.wrap_socket(sock)


def _tls_error(error: ssl.SSLError) -> TlsError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsError(TlsFault.REFUSED, f"the certificate there is not by an authority in --cacert: {error.verify_message}")
    if error.reason in _NO_TLS:
        return TlsError(TlsFault.PROTOCOL, "what answers there speaks no TLS: http:// may be what is meant")
    return TlsError(TlsFault.CLOSED, f"no TLS: {error.reason or describe_os_error(error)}".lower())


def _parse_document(body: bytes) -> Mapping[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _describe(code: int) -> str:
    try:
        return f"{code} {http.HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)
