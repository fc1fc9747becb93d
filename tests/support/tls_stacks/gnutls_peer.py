"""A TLS peer of GnuTLS by ctypes: `gnutls_peer.py ROLE CHAIN KEY CA`."""

from __future__ import annotations

import ctypes
import socket
import sys
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_ssize_t, c_uint, c_void_p

from peer import Ended, Peer, serve_commands

_SERVER, _CLIENT = 1, 2  # gnutls_init_flags_t
_CRD_CERTIFICATE, _FMT_PEM, _CERT_REQUIRE = 1, 1, 2
_SHUT_RDWR, _SHUT_WR = 0, 1
_AGAIN, _INTERRUPTED, _PULL_ERROR, _PREMATURE = -28, -52, -54, -110
_NAME_DNS = 1

lib = ctypes.CDLL("libgnutls.so.30", use_errno=True)
_CALLS: dict[str, tuple[type | None, list[type]]] = {
    "gnutls_certificate_allocate_credentials": (c_int, [POINTER(c_void_p)]),
    "gnutls_certificate_set_x509_key_file": (c_int, [c_void_p, c_char_p, c_char_p, c_int]),
    "gnutls_certificate_set_x509_trust_file": (c_int, [c_void_p, c_char_p, c_int]),
    "gnutls_init": (c_int, [POINTER(c_void_p), c_uint]),
    "gnutls_deinit": (None, [c_void_p]),
    "gnutls_priority_set_direct": (c_int, [c_void_p, c_char_p, c_void_p]),
    "gnutls_credentials_set": (c_int, [c_void_p, c_int, c_void_p]),
    "gnutls_certificate_server_set_request": (None, [c_void_p, c_int]),
    "gnutls_server_name_set": (c_int, [c_void_p, c_int, c_char_p, c_size_t]),
    "gnutls_session_set_verify_cert": (None, [c_void_p, c_char_p, c_uint]),
    "gnutls_transport_set_int2": (None, [c_void_p, c_int, c_int]),
    "gnutls_handshake": (c_int, [c_void_p]),
    "gnutls_record_send": (c_ssize_t, [c_void_p, c_char_p, c_size_t]),
    "gnutls_record_recv": (c_ssize_t, [c_void_p, c_char_p, c_size_t]),
    "gnutls_bye": (c_int, [c_void_p, c_int]),
    "gnutls_strerror": (c_char_p, [c_int]),
}
for _name, (_result, _arguments) in _CALLS.items():
    getattr(lib, _name).restype, getattr(lib, _name).argtypes = _result, _arguments


def checked(code: int) -> int:
    """A result that is no error."""
    if code < 0:
        raise OSError(f"GnuTLS: {lib.gnutls_strerror(code).decode()} ({code})")
    return code


def patiently(call: str, *arguments: object) -> int:
    """The result of a call that may have to be made again."""
    code = _AGAIN
    while code in (_AGAIN, _INTERRUPTED):
        code = getattr(lib, call)(*arguments)
    return code


class GnuTlsPeer:
    """One session over a blocking descriptor."""

    def __init__(self, sock: socket.socket, credentials: c_void_p, version: str, is_server: bool) -> None:
        self.socket = sock
        sock.setblocking(True)
        self._session = session = c_void_p()
        checked(lib.gnutls_init(ctypes.byref(session), _SERVER if is_server else _CLIENT))
        checked(lib.gnutls_priority_set_direct(session, f"NORMAL:-VERS-ALL:+VERS-TLS{version}".encode(), None))
        checked(lib.gnutls_credentials_set(session, _CRD_CERTIFICATE, credentials))
        if is_server:
            lib.gnutls_certificate_server_set_request(session, _CERT_REQUIRE)
            lib.gnutls_session_set_verify_cert(session, None, 0)
        else:
            checked(lib.gnutls_server_name_set(session, _NAME_DNS, b"localhost", 9))
            lib.gnutls_session_set_verify_cert(session, b"localhost", 0)
        lib.gnutls_transport_set_int2(session, sock.fileno(), sock.fileno())
        checked(patiently("gnutls_handshake", session))

    def __del__(self) -> None:
        lib.gnutls_deinit(self._session)

    def send(self, data: bytes) -> None:
        for at in range(0, len(data), 16384):
            piece = data[at : at + 16384]
            while piece:
                piece = piece[checked(patiently("gnutls_record_send", self._session, piece, len(piece))) :]

    def recv(self, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        got = patiently("gnutls_record_recv", self._session, buffer, size)
        if got == 0:
            raise Ended("eof")
        if got == _PREMATURE:
            raise Ended("cut")
        if got == _PULL_ERROR:
            raise Ended("reset")
        return buffer.raw[: checked(got)]

    def half_close(self) -> None:
        checked(patiently("gnutls_bye", self._session, _SHUT_WR))

    def close(self) -> None:
        checked(patiently("gnutls_bye", self._session, _SHUT_RDWR))


def main(role: str, chain: str, key: str, ca: str) -> None:
    """Serve commands in one role."""
    credentials = c_void_p()
    checked(lib.gnutls_certificate_allocate_credentials(ctypes.byref(credentials)))
    checked(lib.gnutls_certificate_set_x509_key_file(credentials, chain.encode(), key.encode(), _FMT_PEM))
    checked(lib.gnutls_certificate_set_x509_trust_file(credentials, ca.encode(), _FMT_PEM))

    def open_peer(sock: socket.socket, version: str, is_server: bool) -> Peer:
        return GnuTlsPeer(sock, credentials, version, is_server)

    serve_commands(role, open_peer)


if __name__ == "__main__":
    main(*sys.argv[1:])
