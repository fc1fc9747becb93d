"""Starts a command like a service manager does: with listening sockets from descriptor 3 on.

    python socket_activation.py web=127.0.0.1:0 status=unix:/run/s.sock =127.0.0.1:0 -- COMMAND...

A name may be empty. `NAME=closed` passes a closed descriptor, `NAME=datagram` and `NAME=idle` sockets that do not listen,
`NAME=fd:NUMBER` an inherited socket.
ACTIVATE_PID replaces the value of LISTEN_PID.
"""

from __future__ import annotations

import os
import socket
import sys

FIRST = 3


def open_socket(text: str) -> int:
    """A descriptor that a command inherits."""
    if text == "datagram":
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif text == "idle":
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    elif text == "closed":
        return os.open(os.devnull, os.O_RDONLY)
    elif text.startswith("fd:"):
        return os.dup(int(text.removeprefix("fd:")))
    elif text.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(text.removeprefix("unix:"))
        sock.listen()
    else:
        host, _, port = text.rpartition(":")
        host = host.strip("[]")
        sock = socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    return sock.detach()


def main(argv: list[str]) -> None:
    """Open, set the variables, and become the command."""
    split = argv.index("--")
    pairs = [text.partition("=")[::2] for text in argv[:split]]
    for place, (_, kind) in enumerate(pairs, FIRST):
        fd = open_socket(kind)  # the lowest number that is free: each in its place
        assert fd == place, f"descriptor {place} was open before"
        os.set_inheritable(fd, True)
    os.environ["LISTEN_PID"] = os.environ.pop("ACTIVATE_PID", str(os.getpid()))
    os.environ["LISTEN_FDS"] = str(len(pairs))
    os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in pairs)
    os.execvp(argv[split + 1], argv[split + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
