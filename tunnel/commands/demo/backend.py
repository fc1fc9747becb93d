"""The plain TCP service of `tunnel demo`, a process of its own: prints its port, and answers each line."""

from __future__ import annotations

import socketserver
import sys


class _EchoHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"the service received: " + line)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


def main() -> None:
    """Serve until killed."""
    with _Server(("127.0.0.1", 0), _EchoHandler) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
