"""The plain TCP service of `tunnel demo`: it answers each line, and knows nothing of identities.

Knows one port of loopback; must not know TLS or SPIFFE. Run as a process of its own, with no arguments; it
prints its port.
"""

from __future__ import annotations

import socketserver
import sys


class _Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"the service heard: " + line)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


def main() -> None:
    """Serve until killed."""
    with _Server(("127.0.0.1", 0), _Answer) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
