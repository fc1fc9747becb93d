"""The pending ACME challenge (TLS-ALPN-01, RFC 8737), and the recognition of the connections that validate it.

The thread that requests a certificate writes it, the event loop reads it: the state is one reference to an immutable value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tunnel.authz.authorizer import allow_anonymous
from tunnel.lazy_dataclass import dataclass
from tunnel.tls.alpn import ACME_PROTOCOL
from tunnel.tls.client_hello import ClientHello
from tunnel.tls.context import Presented, TlsContext


@dataclass(frozen=True, slots=True)
class _Challenge:
    domain: str
    context: TlsContext


class AcmeChallenges:
    """The context for validation connections of the ACME authority, while a challenge is pending."""

    __slots__ = ("_challenge", "observers")

    def __init__(self) -> None:
        self._challenge: _Challenge | None = None
        self.observers: list[
            Callable[[str, Presented | None], object]
        ] = []  # called on any thread with each challenge, or none

    @contextmanager
    def present(self, domain: str, presented: Presented) -> Iterator[None]:
        """Present this certificate to validation connections for a domain until the context exits; one challenge at a time."""
        self.show(domain, presented)
        try:
            yield
        finally:
            self.show(domain, None)

    def show(self, domain: str, presented: Presented | None) -> None:
        """Present this certificate from now on, or none."""
        self._challenge = None if presented is None else _Challenge(domain, _open_context(presented))
        for observe in self.observers:
            observe(domain, presented)

    def admit(self, hello: ClientHello) -> TlsContext | None:
        """Return the context for a validation connection: the domain in SNI, only `acme-tls/1` in ALPN (RFC 8737, 3)."""
        challenge = self._challenge
        if challenge is None or hello.server_name != challenge.domain or hello.alpn != (ACME_PROTOCOL,):
            return None
        return challenge.context


def _open_context(presented: Presented) -> TlsContext:
    return TlsContext(presented, allow_anonymous("acme"), is_server=True, accepts_acme=True)
