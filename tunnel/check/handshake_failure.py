"""Explains why a handshake with a server failed, from our reason or the server's alert, and what to change.

Everything in a server's certificate is a claim until it is verified: the detail must make that clear.
"""

from __future__ import annotations

from tunnel.authz.peer import parse_peer
from tunnel.check.finding import Finding, problem
from tunnel.check.preflight import Preflight
from tunnel.check.validity import ValidityPeriod, validity_of
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
from tunnel.lazy_dataclass import dataclass
from tunnel.pkix.certificate import parse_certificate
from tunnel.spiffe.ids import SCHEME
from tunnel.spiffe.x509 import parse_leaf_id
from tunnel.time_format import format_time

SERVER, ADMISSION = "server", "admission"
_ADVICE = {
    TargetFault.RESOLVE: "correct the name, or this machine's resolver (getent ahosts NAME)",
    TargetFault.REFUSED: "start the target, or correct the port",
    TargetFault.TIMEOUT: "check firewalls, network policies and whether the machine is up",
    TargetFault.UNREACHABLE: "check that it serves TLS and is healthy: without an identity a tunnel server closes connections",
    TargetFault.PROXY_REFUSED: "ask the proxy's operator to permit this target, or correct the credentials in --proxy",
    TargetFault.PROXY_RESPONSE: "check the scheme of --proxy: http:// and socks5:// differ",
    TargetFault.PROXY_CLOSED: "see the proxy's log",
}
# Alerts (RFC 8446, section 6.2).
_HANDSHAKE_FAILURE, _EXPIRED, _UNKNOWN_CA, _VERSION, _CERTIFICATE_REQUIRED = 40, 45, 48, 70, 116


@dataclass(frozen=True, slots=True)
class PeerClaims:
    """The claims of a server's certificate, verified or not."""

    name: str
    issuer: str
    is_svid: bool
    validity: ValidityPeriod


def read_claims(path: tuple[bytes, ...]) -> PeerClaims | None:
    """Return the claims of the leaf of a path; None if it cannot be read."""
    try:
        leaf = parse_certificate(path[0])
        peer = parse_peer(leaf, None)
    except (WireError, PeerDenied, IndexError):
        return None
    try:
        name, is_svid = str(parse_leaf_id(leaf)), True
    except PeerDenied:
        name, is_svid = str(peer), False
    return PeerClaims(name, leaf.issuer.describe(), is_svid, validity_of((leaf,)))


def advice_for(fault: TargetFault) -> str:
    """Return what to do if a target is not reached."""
    return _ADVICE.get(fault, "check the network, and the limits of this process")


def explain_failure(preflight: Preflight, failure: TunnelError, claims: PeerClaims | None, own_name: str) -> Finding:
    """Return why a handshake failed; `own_name` is the name in our certificate."""
    if isinstance(failure, PeerDenied):
        return _explain_refusal(preflight, failure, claims)
    if isinstance(failure, TlsError):
        return _explain_tls(preflight, failure, claims, own_name)
    reason = failure.reason.value if isinstance(failure, ReasonedError) else "refused"
    fault = failure.reason if isinstance(failure, TargetError) else TargetFault.PROXY_RESPONSE
    return problem(SERVER, f"{reason}: {failure}", advice_for(fault))


def _explain_refusal(preflight: Preflight, denied: PeerDenied, claims: PeerClaims | None) -> Finding:
    who = f"{preflight.config.target_name} presents a certificate of {claims.name if claims else 'an unreadable name'}"
    return problem(SERVER, f"{who} and is refused: {denied}", _advice(preflight, denied, claims))


def _advice(preflight: Preflight, denied: PeerDenied, claims: PeerClaims | None) -> str:
    if isinstance(preflight.config.identity.source, WorkloadApi):
        return _advice_under_spiffe(denied, claims)
    match denied.reason:
        case Denial.HOST_NAME:
            return "if this is the intended server, set --override-server-name to one of its names"
        case Denial.UNKNOWN_AUTHORITY:
            issuer = f" ({claims.issuer})" if claims else ""
            return f"if this is the intended server, set --cacert FILE to the certificate of its authority{issuer}"
        case Denial.NO_RULE:
            return "if this is the intended server, correct the --verify-... rules above"
        case Denial.EXPIRED | Denial.NOT_YET_VALID:
            return _clock_advice(claims)
        case _:
            return "inform the server's operator: its certificate violates this rule"


def _advice_under_spiffe(denied: PeerDenied, claims: PeerClaims | None) -> str:
    match denied.reason:
        case Denial.NO_RULE if claims is not None:
            return f"if this is the intended server, set --verify-id {claims.name}"
        case Denial.UNKNOWN_TRUST_DOMAIN:
            return "to trust that trust domain, federate our registration entry with it (-federatesWith)"
        case Denial.UNKNOWN_AUTHORITY:
            return (
                "no authority of that trust domain signed it: compare the bundles of both sides; one may be out of date, or "
                "belong to another SPIRE server of the same name"
            )
        case Denial.URI_SAN | Denial.SPIFFE_ID | Denial.EXTENDED_KEY_USAGE | Denial.KEY_USAGE if claims and not claims.is_svid:
            return "not an SVID: correct --target; for ordinary TLS use --cert or --keystore with --cacert"
        case Denial.EXPIRED | Denial.NOT_YET_VALID:
            return _clock_advice(claims)
        case _:
            return "inform the server's operator: its certificate violates this rule"


def _clock_advice(claims: PeerClaims | None) -> str:
    dates = f" (certificate: {format_time(claims.validity.start)} to {format_time(claims.validity.end)})" if claims else ""
    return f"compare the clocks of both machines{dates}; if they agree, the server cannot renew: run tunnel check server there"


def _explain_tls(preflight: Preflight, error: TlsError, claims: PeerClaims | None, own_name: str) -> Finding:
    server = claims.name if claims else preflight.config.target_name
    if error.reason is TlsFault.REFUSED:
        return problem(ADMISSION, f"{server} refuses us: {error}", _operator_advice(error, server, own_name))
    if error.reason is TlsFault.PROTOCOL:
        detail = f"{server} does not answer with TLS: {error}"
        return problem(SERVER, detail, "check that this is the port of the tunnel server, not of the plain service behind it")
    return problem(SERVER, f"{server}: {error.reason.value}: {error}", advice_for(TargetFault.UNREACHABLE))


def _operator_advice(error: TlsError, server: str, own_name: str) -> str:
    if error.alert in (_HANDSHAKE_FAILURE, _VERSION):
        return "no TLS version (1.2, 1.3), cipher suite or key type in common: see its log"
    if error.alert == _CERTIFICATE_REQUIRED or not own_name:
        return "it requires a client certificate: remove --disable-authentication"
    if error.alert == _UNKNOWN_CA:
        return (
            f"it does not trust our authority: ask its operator to trust that of {own_name} (with SPIFFE, to federate with it)"
        )
    if error.alert == _EXPIRED:
        return "our certificate is expired by its clock: compare the clocks of both machines"
    flag = f" (--allow-id {own_name})" if own_name.startswith(SCHEME) else ""
    return f"ask the operator of {server} to admit {own_name}{flag}, and see the reason in its log"
