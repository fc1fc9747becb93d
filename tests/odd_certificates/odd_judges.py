"""Our verifiers as functions from certificates in DER to a verdict, as a file, a bundle or a peer brings them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from odd_cases import OK, Verdict

from tunnel.errors import Denial, PeerDenied, WireError
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.x509 import parse_certificate
from tunnel.tls.facts import describe_peer
from tunnel.tls.path import Verifier
from tunnel.tls.pki import PkiVerifier
from tunnel.tls.verify import SpiffeVerifier

_DOMAIN = TrustDomain("a.test")


def judge(role: str, anchors: Sequence[bytes], sent: Sequence[bytes], host: str, now: datetime | None = None) -> Verdict:
    """The verdict of the file mode's `server` or `client`, or of the `spiffe` mode."""
    try:
        path = [parse_certificate(der) for der in sent]
        verified = _VERIFIERS[role](usable(anchors), host).verify(path, now or datetime.now(UTC))
        describe_peer(verified.leaf, verified.spiffe_id)  # as every rule needs it, `--allow-all` too
    except WireError:
        return Denial.UNREADABLE
    except PeerDenied as denied:
        return denied.reason
    return OK


def usable(anchors: Sequence[bytes]) -> list[x509.Certificate]:
    """The anchors that can be parsed: a file or a bundle is not refused for one of its certificates."""
    made = []
    for der in anchors:
        try:
            made.append(parse_certificate(der))
        except WireError:
            continue
    return made


def _for_server(anchors: Sequence[x509.Certificate], _host: str) -> Verifier:
    return PkiVerifier(anchors, ExtendedKeyUsageOID.CLIENT_AUTH)


def _for_client(anchors: Sequence[x509.Certificate], host: str) -> Verifier:
    return PkiVerifier(anchors, ExtendedKeyUsageOID.SERVER_AUTH, host)


def _for_spiffe(anchors: Sequence[x509.Certificate], _host: str) -> Verifier:
    return SpiffeVerifier(BundleSet({_DOMAIN: TrustBundle(_DOMAIN, tuple(anchors))}))


_VERIFIERS: dict[str, Callable[[Sequence[x509.Certificate], str], Verifier]] = {
    "server": _for_server,
    "client": _for_client,
    "spiffe": _for_spiffe,
}
