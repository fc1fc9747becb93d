"""Asking a SOCKS5 proxy for the target (RFC 1928), with a username and password if there are any (RFC 1929).

Knows the messages and their order; must not know sockets or time. A name goes to the proxy as it is written, an address as
an address. A proxy that answers before it is asked is not understood.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from tunnel.errors import ConfigError
from tunnel.ip_address import parse_ip_address
from tunnel.wire.outbound import OutboundProxy, Reached, not_understood, refused

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
    """The choice of a method, the login if one is wanted, and the request."""

    def __init__(self, proxy: OutboundProxy, host: str, port: int) -> None:
        self._proxy = proxy
        self._request = struct.pack("!BBB", _VERSION, _CONNECT, 0) + _encode_target(host) + struct.pack("!H", port)
        self._methods = [_NO_LOGIN, _LOGIN] if proxy.has_credentials else [_NO_LOGIN]
        self._received = b""
        self._step: Callable[[], bytes | Reached] = self._method_chosen

    def start(self) -> bytes:
        """The methods we offer."""
        return bytes([_VERSION, len(self._methods), *self._methods])

    def feed(self, data: bytes) -> bytes | Reached:
        """The next message when the answer to the last is complete; raises TargetError when refused, else WireError."""
        self._received += data
        return self._step()

    def _method_chosen(self) -> bytes:
        self._check_version(_VERSION)
        if len(self._received) < 2:
            return b""
        method = self._take_short_answer()
        if method == _NO_METHOD:
            hint = "" if self._proxy.has_credentials else ", and the URL has no username"
            raise refused(self._proxy, f"no method of authentication in common{hint}")
        if method not in self._methods:
            raise not_understood(self._proxy, f"it chose the method {method}, which was not offered")
        if method == _NO_LOGIN:
            return self._ask()
        self._step = self._login_answered
        username, password = self._proxy.username.encode(), self._proxy.password.encode()
        return bytes([_LOGIN_VERSION, len(username)]) + username + bytes([len(password)]) + password

    def _login_answered(self) -> bytes:
        self._check_version(_LOGIN_VERSION)
        if len(self._received) < 2:
            return b""
        if status := self._take_short_answer():
            raise refused(self._proxy, f"wrong username or password (status {status})")
        return self._ask()

    def _ask(self) -> bytes:
        self._step = self._answered
        return self._request

    def _answered(self) -> bytes | Reached:
        self._check_version(_VERSION)
        answer = self._received
        if len(answer) > 1 and answer[1]:  # some end the message here
            raise refused(self._proxy, f"{_REPLIES.get(answer[1], 'unknown reply')} (reply {answer[1]})")
        if len(answer) < 5:
            return b""
        sizes = {_IPV4: 4, _NAME: 1 + answer[4], _IPV6: 16}
        if answer[3] not in sizes:
            raise not_understood(self._proxy, f"address type {answer[3]} in its answer")
        end = 4 + sizes[answer[3]] + 2  # where it has bound; of no use to us
        return Reached(answer[end:]) if len(answer) >= end else b""

    def _check_version(self, wanted: int) -> None:
        if self._received and self._received[0] != wanted:
            raise not_understood(self._proxy, f"its answer begins with {self._received[0]:#04x} and not with {wanted:#04x}")

    def _take_short_answer(self) -> int:
        """The second byte of an answer of two."""
        if len(self._received) > 2:
            raise not_understood(self._proxy, "it answers before it is asked")
        value, self._received = self._received[1], b""
        return value


def _encode_target(host: str) -> bytes:
    ip = parse_ip_address("" if "%" in host else host)  # an address has no room for a scope
    if ip is None:
        name = host.encode()
        if not 0 < len(name) <= 255:
            raise ConfigError(f"target {host!a} cannot be asked of a SOCKS5 proxy: a name of 1 to 255 bytes is wanted")
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if ip.version == 4 else _IPV6]) + ip.packed
