"""A name server on the loopback address that answers from a table, for one test."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from tunnel.net.address import TcpAddress


class DnsServer:
    """Answers queries over UDP; `records` has for each name and type the lifetime and the texts of its records."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self.is_failing = False  # with SERVFAIL
        self.is_silent = False
        self.queries: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = TcpAddress("127.0.0.1", str(self._socket.getsockname()[1]))
        self._thread = threading.Thread(target=self._serve, name="dns-server")

    def set_srv(self, name: str, *records: str, lifetime: int = 1) -> None:
        """Set the SRV records of a name, each `PRIORITY WEIGHT PORT HOST.`."""
        self.records[f"{name}.", "SRV"] = (lifetime, list(records))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self._socket.getsockname())
        self._thread.join(20)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(65535)
            if not data:
                return
            if not self.is_silent:
                self._socket.sendto(self._answer(dns.message.from_wire(data)).to_wire(), sender)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        (question,) = query.question
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.queries.append(f"{name} {kind}")
        if self.is_failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif (name, kind) in self.records:
            lifetime, texts = self.records[name, kind]
            if texts:
                response.answer.append(dns.rrset.from_text(name, lifetime, "IN", kind, *texts))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response


@contextmanager
def dns_server() -> Iterator[DnsServer]:
    """A name server that runs until the end of the block."""
    server = DnsServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
