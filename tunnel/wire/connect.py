"""Asking an HTTP proxy for the target: CONNECT (RFC 9110, section 9.3.6).

Knows the request and what an answer means; must not know sockets or time. h11 reads the answer.
"""

from __future__ import annotations

import base64

import h11

from tunnel.errors import ConfigError, WireFault
from tunnel.net.address import TcpAddress
from tunnel.wire.outbound import OutboundProxy, Reached, not_understood, refused

_MAX_HEAD = 64 * 1024  # bytes up to the end of the final answer's header, interim answers included


class ConnectExchange:
    """One CONNECT request and its answer; status 200 and no other opens the way."""

    def __init__(self, proxy: OutboundProxy, host: str, port: int) -> None:
        self._proxy = proxy
        self._received = 0
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD + 1)  # our own limit is met first
        authority = str(TcpAddress(host, str(port)))
        try:
            self._request = self._encode_request(authority)
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise ConfigError(f"target {authority!a} cannot be asked of an HTTP proxy: a name in ASCII is wanted") from error

    def start(self) -> bytes:
        """The request."""
        return self._request

    def feed(self, data: bytes) -> bytes | Reached:
        """Nothing to say until the answer is there; raises TargetError when it is no, WireError when it is none."""
        if not data:
            return b""
        self._received += len(data)
        self._parser.receive_data(data)
        answer = self._next_answer()
        leftover = self._parser.trailing_data[0]
        # By what the header takes and not by what is there: the verdict must not depend on how the bytes come in.
        if self._received - (len(leftover) if answer else 0) > _MAX_HEAD:
            raise not_understood(self._proxy, f"a header of more than {_MAX_HEAD} bytes", WireFault.TOO_LARGE)
        if answer is None:
            return b""
        if answer.status_code != 200:
            raise refused(self._proxy, f"{answer.status_code} {answer.reason.decode('latin-1')}".rstrip())
        return Reached(leftover)

    def _next_answer(self) -> h11.Response | None:
        try:
            while True:
                event = self._parser.next_event()
                if isinstance(event, h11.Response):
                    return event
                if not isinstance(event, h11.InformationalResponse):
                    return None
        except h11.RemoteProtocolError as error:
            raise not_understood(self._proxy, f"no HTTP response: {error}") from error

    def _encode_request(self, authority: str) -> bytes:
        headers = [("Host", authority), ("User-Agent", "tunnel")]
        if self._proxy.has_credentials:
            pair = f"{self._proxy.username}:{self._proxy.password}".encode()
            headers.append(("Proxy-Authorization", "Basic " + base64.b64encode(pair).decode()))
        head = self._parser.send(h11.Request(method="CONNECT", target=authority, headers=headers))
        rest = self._parser.send(h11.EndOfMessage())
        return (head or b"") + (rest or b"")
