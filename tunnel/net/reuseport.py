"""Which of the sockets that share a TCP port gets new connections: classic BPF programs of SO_REUSEPORT (socket(7)).

Sockets of one user at one address are a group. The kernel numbers them in the order in which they began to listen. When one
closes, the last one gets its number. A process cannot query the number of its socket.
"""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26
_SO_ATTACH_REUSEPORT_CBPF = 51  # since Linux 4.5
_LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06  # bpf(4), linux/bpf_common.h
_TCP_FLAGS, _SYN, _ACK = 13, 0x02, 0x10  # RFC 9293, section 3.1: an offset and bits
_NO_NUMBER = 0xFFFF_FFFF
_DROP, _PASS = 0, 0xFFFF_FFFF  # bytes of the packet to keep

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def select_socket(sock: socket.socket, number: int) -> None:
    """Give all new connections to one socket of the group; by hash again if none has this number. Raises OSError."""
    _attach(sock, _SO_ATTACH_REUSEPORT_CBPF, (_RETURN, 0, 0, number))


def select_by_hash(sock: socket.socket) -> None:
    """Distribute new connections to all sockets of the group, as without a program. Raises OSError."""
    select_socket(sock, _NO_NUMBER)


def drop_new_connections(sock: socket.socket) -> None:
    """Drop each SYN that reaches this socket: its sender repeats it a second later. Raises OSError.

    TCP handshakes that have begun complete. Connections accepted later inherit the filter, which passes all that they receive.
    """
    _attach(
        sock,
        _SO_ATTACH_FILTER,
        (_LOAD_BYTE, 0, 0, _TCP_FLAGS),
        (_AND, 0, 0, _SYN | _ACK),
        (_JUMP_IF_EQUAL, 0, 1, _SYN),
        (_RETURN, 0, 0, _DROP),
        (_RETURN, 0, 0, _PASS),
    )


def _attach(sock: socket.socket, option: int, *program: _Instruction) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)  # struct sock_filter
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@HP", len(program), ctypes.addressof(buffer)))  # struct sock_fprog
