"""What a server's certificate and its refusals mean, and what to write or to ask for.

Knows reasons and alerts; must not know how a handshake is made. Everything that a server has shown is its claim until the
verdict says otherwise, and is told as such.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.authz.peer import parse_peer
from tunnel.check.case import Case
from tunnel.check.finding import Finding, problem
from tunnel.check.spans import Span, span_of_chain
from tunnel.config.model import WorkloadApi
from tunnel.errors import (
    Denial,
    PeerDenied,
    ReasonedError,
    TargetError,
    TargetFault,
    TlsError,
    TlsFault,
    TunnelError,
    WireError,
)
from tunnel.pkix.certificate import parse_certificate
from tunnel.spiffe.ids import SCHEME
from tunnel.spiffe.x509 import parse_leaf_id
from tunnel.time_format import format_time

SERVER, ADMISSION = "server", "admission"
_ADVICE = {
    TargetFault.RESOLVE: "mend the name, or this machine's resolver (getent ahosts NAME)",
    TargetFault.REFUSED: "start what should listen there, or mend the port",
    TargetFault.TIMEOUT: "a firewall or a network policy may swallow it, or the machine is away",
    TargetFault.UNREACHABLE: "does it serve TLS, and is it well? One of ours without an identity closes at once: check there",
    TargetFault.PROXY_REFUSED: "ask the proxy's operator to let us through to that target, or mend the credentials in --proxy",
    TargetFault.PROXY_RESPONSE: "is --proxy that kind of proxy? http:// and socks5:// differ",
    TargetFault.PROXY_CLOSED: "see the proxy's log",
}
# Alerts (RFC 8446, section 6.2).
_HANDSHAKE_FAILURE, _EXPIRED, _UNKNOWN_CA, _VERSION, _CERTIFICATE_REQUIRED = 40, 45, 48, 70, 116


@dataclass(frozen=True, slots=True)
class Shown:
    """What a server has shown of itself, proven or not."""

    name: str
    issuer: str
    is_svid: bool
    span: Span


def read_shown(path: tuple[bytes, ...]) -> Shown | None:
    """What the leaf of a path says; None for one that cannot be read."""
    try:
        leaf = parse_certificate(path[0])
        peer = parse_peer(leaf, None)
    except (WireError, PeerDenied, IndexError):
        return None
    try:
        name, is_svid = str(parse_leaf_id(leaf)), True
    except PeerDenied:
        name, is_svid = str(peer), False
    return Shown(name, leaf.issuer.describe(), is_svid, span_of_chain((leaf,)))


def advice_of(fault: TargetFault) -> str:
    """What to do about a target that is not reached."""
    return _ADVICE.get(fault, "look at the network, and at the limits of this process")


def explain_failure(case: Case, failure: TunnelError, seen: Shown | None, we: str) -> Finding:
    """Why there was no good end to a handshake; `we` is who we have shown to be."""
    if isinstance(failure, PeerDenied):
        return _explain_refusal(case, failure, seen)
    if isinstance(failure, TlsError):
        return _explain_tls(case, failure, seen, we)
    reason = failure.reason.value if isinstance(failure, ReasonedError) else "refused"
    fault = failure.reason if isinstance(failure, TargetError) else TargetFault.PROXY_RESPONSE
    return problem(SERVER, f"{reason}: {failure}", advice_of(fault))


def _explain_refusal(case: Case, denied: PeerDenied, seen: Shown | None) -> Finding:
    who = f"{case.config.target} shows a certificate of {seen.name if seen else 'nobody we can read'}"
    return problem(SERVER, f"{who}, and is refused: {denied}", _advice(case, denied, seen))


def _advice(case: Case, denied: PeerDenied, seen: Shown | None) -> str:
    if isinstance(case.config.source, WorkloadApi):
        return _advice_under_spiffe(denied, seen)
    match denied.reason:
        case Denial.HOST_NAME:
            return "if that is the server that is meant, say --override-server-name with one of its names"
        case Denial.UNKNOWN_AUTHORITY:
            issuer = f" ({seen.issuer})" if seen else ""
            return f"if that is the server that is meant, give the certificate of its authority{issuer} by --cacert FILE"
        case Denial.NO_RULE:
            return "if that is the server that is meant, mend the --verify-... rules above"
        case Denial.EXPIRED | Denial.NOT_YET_VALID:
            return _clock(seen)
        case _:
            return "tell the server's operator: its certificate breaks this rule"


def _advice_under_spiffe(denied: PeerDenied, seen: Shown | None) -> str:
    match denied.reason:
        case Denial.NO_RULE if seen is not None:
            return f"if that is the server that is meant, say --verify-id {seen.name}"
        case Denial.UNKNOWN_TRUST_DOMAIN:
            return "have our registration entry federate with that trust domain (-federatesWith), if it is to be trusted"
        case Denial.UNKNOWN_AUTHORITY:
            return (
                "no authority of that trust domain has signed it: is it another SPIRE server's of the same name, or has one of "
                "the two sides missed a change of authorities? Compare the bundles"
            )
        case Denial.URI_SAN | Denial.SPIFFE_ID | Denial.EXTENDED_KEY_USAGE | Denial.KEY_USAGE if seen and not seen.is_svid:
            return "that is no SVID: mend --target; or, if ordinary TLS is meant, use --cert or --keystore with --cacert"
        case Denial.EXPIRED | Denial.NOT_YET_VALID:
            return _clock(seen)
        case _:
            return "tell the server's operator: its certificate breaks this rule"


def _clock(seen: Shown | None) -> str:
    dates = f" (its certificate says {format_time(seen.span.start)} to {format_time(seen.span.end)})" if seen else ""
    return f"compare the clocks here and there{dates}; else the server cannot renew: run its check there"


def _explain_tls(case: Case, error: TlsError, seen: Shown | None, we: str) -> Finding:
    server = seen.name if seen else str(case.config.target)
    if error.reason is TlsFault.REFUSED:
        return problem(ADMISSION, f"{server} refuses us: {error}", _ask_operator(error, server, we))
    if error.reason is TlsFault.PROTOCOL:
        said = f"{server} does not answer in TLS as we speak it: {error}"
        return problem(SERVER, said, "is this the port of a tunnel server, and not of the plain service behind it?")
    return problem(SERVER, f"{server}: {error.reason.value}: {error}", advice_of(TargetFault.UNREACHABLE))


def _ask_operator(error: TlsError, server: str, we: str) -> str:
    if error.alert in (_HANDSHAKE_FAILURE, _VERSION):
        return "it has no version of TLS (1.2, 1.3), no cipher suite or no kind of key in common with us: see its log"
    if error.alert == _CERTIFICATE_REQUIRED or not we:
        return "it wants a certificate, and we show none: leave --disable-authentication out"
    if error.alert == _UNKNOWN_CA:
        return f"it knows no authority of ours: ask its operator to trust that of {we} (under SPIFFE, to federate with it)"
    if error.alert == _EXPIRED:
        return "by its clock our certificate is out of date: compare the clocks here and there"
    flag = f" (--allow-id {we})" if we.startswith(SCHEME) else ""
    return f"ask the operator of {server} to admit {we}{flag}, and see the reason in its log"
