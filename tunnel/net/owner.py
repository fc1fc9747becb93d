"""Whose process is at the other end of a local connection.

Knows what the kernel tells of it; must not know what follows from the answer.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid (unix(7), SO_PEERCRED)


def owner_of_peer(sock: socket.socket, address: Any) -> int | None:
    """The user ID of who has connected, or None where that is not known."""
    if sock.family != socket.AF_UNIX:
        return None
    _pid, user, _group = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)
