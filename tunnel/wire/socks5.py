"""SOCKS5 (RFC 1928), the request to a proxy for a connection to the target, with username and password (RFC 1929).

Host names are resolved by the proxy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from tunnel.errors import invalid_value
from tunnel.ip_address import parse_ip_address
from tunnel.wire.outbound import OutboundProxy, Reached, invalid_response, refused

_VERSION, _LOGIN_VERSION = 5, 1
_NO_LOGIN, _LOGIN, _NO_METHOD = 0, 2, 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_REPLIES = {
    1: "general failure",
    2: "connection not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}


class Socks5Exchange:
    """The method negotiation, the login if the proxy selects it, and the request."""

    def __init__(self, proxy: OutboundProxy, host: str, port: int) -> None:
        self._proxy = proxy
        self._request = struct.pack("!BBB", _VERSION, _CONNECT, 0) + _encode_target(host) + struct.pack("!H", port)
        self._methods = [_NO_LOGIN, _LOGIN] if proxy.has_credentials else [_NO_LOGIN]
        self._received = b""
        self._step: Callable[[], bytes | Reached] = self._on_method

    def start(self) -> bytes:
        """Return the methods that we offer."""
        return bytes([_VERSION, len(self._methods), *self._methods])

    def feed(self, data: bytes) -> bytes | Reached:
        """Return the next message when the reply to the last one is complete; raises TargetError if refused, else WireError."""
        self._received += data
        return self._step()

    def _on_method(self) -> bytes:
        self._check_version(_VERSION)
        if len(self._received) < 2:
            return b""
        method = self._take_short_answer()
        if method == _NO_METHOD:
            hint = "" if self._proxy.has_credentials else ", and the URL has no username"
            raise refused(self._proxy, f"no common authentication method{hint}")
        if method not in self._methods:
            raise invalid_response(self._proxy, f"method {method} was not offered")
        if method == _NO_LOGIN:
            return self._send_request()
        self._step = self._on_login
        username, password = self._proxy.username.encode(), self._proxy.password.encode()
        return bytes([_LOGIN_VERSION, len(username)]) + username + bytes([len(password)]) + password

    def _on_login(self) -> bytes:
        self._check_version(_LOGIN_VERSION)
        if len(self._received) < 2:
            return b""
        if status := self._take_short_answer():
            raise refused(self._proxy, f"wrong username or password (status {status})")
        return self._send_request()

    def _send_request(self) -> bytes:
        self._step = self._on_reply
        return self._request

    def _on_reply(self) -> bytes | Reached:
        self._check_version(_VERSION)
        answer = self._received
        if len(answer) > 1 and answer[1]:  # some proxies end the message here
            raise refused(self._proxy, f"{_REPLIES.get(answer[1], 'unknown reply')} (reply {answer[1]})")
        if len(answer) < 5:
            return b""
        sizes = {_IPV4: 4, _NAME: 1 + answer[4], _IPV6: 16}
        if answer[3] not in sizes:
            raise invalid_response(self._proxy, f"unknown address type {answer[3]}")
        end = 4 + sizes[answer[3]] + 2  # the bound address is not used
        return Reached(answer[end:]) if len(answer) >= end else b""

    def _check_version(self, wanted: int) -> None:
        if self._received and self._received[0] != wanted:
            raise invalid_response(self._proxy, f"version {self._received[0]:#04x}; expected {wanted:#04x}")

    def _take_short_answer(self) -> int:
        """Return the second byte of a reply of two bytes."""
        if len(self._received) > 2:
            raise invalid_response(self._proxy, "unexpected bytes after a reply")
        value, self._received = self._received[1], b""
        return value


def _encode_target(host: str) -> bytes:
    ip = parse_ip_address("" if "%" in host else host)  # the address format has no zone
    if ip is None:
        name = host.encode()
        if not 0 < len(name) <= 255:
            raise invalid_value("target for a SOCKS5 proxy", host, "", "a host name of 1 to 255 bytes")
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if ip.version == 4 else _IPV6]) + ip.packed
