"""Requests to a status port on a Unix socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.plain_backends import connect, receive_all


def status(place: Path, query: str = "", path: str = "/_status") -> tuple[int, dict[str, Any]]:
    """The code and the document of a status port at a Unix socket."""
    with connect(str(place)) as sock:
        sock.sendall(f"GET {path}{query} HTTP/1.0\r\n\r\n".encode())
        head, _, body = receive_all(sock).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def metric(place: Path, name: str) -> float:
    with connect(str(place)) as sock:
        sock.sendall(b"GET /_metrics/prometheus HTTP/1.0\r\n\r\n")
        lines = receive_all(sock).decode().splitlines()
    (value,) = (float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))
    return value
