"""CONNECT, the request to an HTTP proxy for a connection to the target (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import base64

import h11

from tunnel.errors import WireFault, invalid_value
from tunnel.net.address import TcpAddress
from tunnel.wire.outbound import OutboundProxy, Reached, invalid_response, refused

_MAX_HEAD = 64 * 1024  # bytes up to the end of the final header, including interim responses


class ConnectExchange:
    """One CONNECT request and its response; only status 200 is success."""

    def __init__(self, proxy: OutboundProxy, host: str, port: int) -> None:
        self._proxy = proxy
        self._received = 0
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD + 1)  # our limit applies first
        authority = str(TcpAddress(host, str(port)))
        try:
            self._request = self._encode_request(authority)
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise invalid_value("target for an HTTP proxy", authority, "", "an ASCII host name") from error

    def start(self) -> bytes:
        """Return the request."""
        return self._request

    def feed(self, data: bytes) -> bytes | Reached:
        """Return empty bytes until the response is complete; raises TargetError if refused, WireError for a bad response."""
        if not data:
            return b""
        self._received += len(data)
        self._parser.receive_data(data)
        response = self._next_response()
        leftover = self._parser.trailing_data[0]
        # By the size of the header, not of all bytes: the result must not depend on how the bytes are split.
        if self._received - (len(leftover) if response else 0) > _MAX_HEAD:
            raise invalid_response(self._proxy, f"a header of more than {_MAX_HEAD} bytes", WireFault.TOO_LARGE)
        if response is None:
            return b""
        if response.status_code != 200:
            raise refused(self._proxy, f"{response.status_code} {response.reason.decode('latin-1')}".rstrip())
        return Reached(leftover)

    def _next_response(self) -> h11.Response | None:
        try:
            while True:
                event = self._parser.next_event()
                if isinstance(event, h11.Response):
                    return event
                if not isinstance(event, h11.InformationalResponse):
                    return None
        except h11.RemoteProtocolError as error:
            raise invalid_response(self._proxy, f"not HTTP: {error}") from error

    def _encode_request(self, authority: str) -> bytes:
        headers = [("Host", authority), ("User-Agent", "tunnel")]
        if self._proxy.has_credentials:
            pair = f"{self._proxy.username}:{self._proxy.password}".encode()
            headers.append(("Proxy-Authorization", "Basic " + base64.b64encode(pair).decode()))
        head = self._parser.send(h11.Request(method="CONNECT", target=authority, headers=headers))
        rest = self._parser.send(h11.EndOfMessage())
        return (head or b"") + (rest or b"")
