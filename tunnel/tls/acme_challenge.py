"""The challenge that is to be answered now, if any.

Knows which ClientHello is an ACME authority's probe, and the context that answers it; must not know who waits for it or
where the connection comes from. Written by the thread that asks for a certificate, read by the one that serves: the state
is one reference to a value that does not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tunnel.authz.authorizer import allow_anonymous
from tunnel.tls.alpn import ACME_PROTOCOL
from tunnel.tls.client_hello import ClientHello
from tunnel.tls.context import Presented, TlsContext


@dataclass(frozen=True, slots=True)
class _Challenge:
    domain: str
    context: TlsContext


class AcmeChallenges:
    """Lets an authority's probe through, and nobody else."""

    __slots__ = ("_challenge",)

    def __init__(self) -> None:
        self._challenge: _Challenge | None = None

    @contextmanager
    def show(self, domain: str, presented: Presented) -> Iterator[None]:
        """Answer probes for a domain with this certificate until the context is left; one at a time."""
        context = TlsContext(presented, allow_anonymous("acme"), is_server=True, knows_acme=True)
        self._challenge = _Challenge(domain, context)
        try:
            yield
        finally:
            self._challenge = None

    def admit(self, hello: ClientHello) -> TlsContext | None:
        """The context for a probe: the name that is in question, and ACME's protocol alone (RFC 8737, section 3)."""
        challenge = self._challenge
        if challenge is None or hello.server_name != challenge.domain or hello.alpn != (ACME_PROTOCOL,):
            return None
        return challenge.context
