"""Our verifiers as functions from certificates in DER to a verdict, as a file, a bundle or a peer brings them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tests.support.odd_certificates.cases import OK, Verdict
from tunnel.authz.authorizer import Authorizer
from tunnel.authz.rules import AnyRule
from tunnel.errors import PeerDenied, WireError
from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.pkix.extensions import CLIENT_AUTH, SERVER_AUTH
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain
from tunnel.tls.admission import PeerAdmission
from tunnel.tls.verify import PkiVerifier, SpiffeVerifier, Verifier, build_pki_anchors

_DOMAIN = TrustDomain("a.test")


def judge(role: str, anchors: Sequence[bytes], sent: Sequence[bytes], host: str, now: datetime | None = None) -> Verdict:
    """The verdict of the file mode's `server` or `client`, or of the `spiffe` mode."""
    at = now or datetime.now(UTC)
    authorizer = Authorizer((AnyRule(),), _DOMAIN if role == "spiffe" else None)
    judged = PeerAdmission(_VERIFIERS[role](usable(anchors), host), authorizer, at.timestamp)
    try:
        judged(b"", lambda: tuple(sent))
    except PeerDenied as denied:
        return denied.reason
    return OK


def usable(anchors: Sequence[bytes]) -> list[Certificate]:
    """The anchors that can be parsed: a file or a bundle is not refused for one of its certificates."""
    made = []
    for der in anchors:
        try:
            made.append(parse_certificate(der))
        except WireError:
            continue
    return made


def _for_server(anchors: Sequence[Certificate], _host: str) -> Verifier:
    return PkiVerifier(build_pki_anchors(anchors), CLIENT_AUTH)


def _for_client(anchors: Sequence[Certificate], host: str) -> Verifier:
    return PkiVerifier(build_pki_anchors(anchors), SERVER_AUTH, host)


def _for_spiffe(anchors: Sequence[Certificate], _host: str) -> Verifier:
    return SpiffeVerifier(BundleSet({_DOMAIN: TrustBundle(_DOMAIN, tuple(anchors))}))


_VERIFIERS: dict[str, Callable[[Sequence[Certificate], str], Verifier]] = {
    "server": _for_server,
    "client": _for_client,
    "spiffe": _for_spiffe,
}
