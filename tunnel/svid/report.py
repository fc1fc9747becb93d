"""The output of `svid show`: the SVIDs and bundles of an update, as text and as JSON.

No key material is shown, only its type. Text from certificates is escaped: it may be hostile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from tunnel.identity.credentials import X509Context, X509Svid, describe_key
from tunnel.log import escape
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.names import SERIAL_NUMBER
from tunnel.spiffe.bundle import TrustBundle
from tunnel.spiffe.ids import TrustDomain
from tunnel.svid.update_files import serial_of
from tunnel.time_format import describe_distance, format_time


def choose_svids(context: X509Context, chosen: X509Svid, *, is_open: bool) -> tuple[X509Svid, ...]:
    """Return the SVIDs to show: all of an update, or the selected one."""
    return context.svids if is_open else (chosen,)


def describe_update(svids: Iterable[X509Svid], context: X509Context, now: datetime) -> str:
    """Return SVIDs and bundles as text."""
    svids = tuple(svids)
    lines: list[str] = []
    for svid in svids:
        lines += [*_describe_svid(svid, now), ""]
    own = {svid.spiffe_id.trust_domain for svid in svids}
    for domain, bundle in _in_order(context, own):
        lines.append(f"trust domain {domain} ({'own' if domain in own else 'federated'}): {_describe_bundle(bundle, now)}")
    lines += [f"warning: SVID skipped: {escape(failure)}" for failure in context.skipped]
    lines += [f"warning: {escape(note)}" for note in context.notes]
    return "\n".join(lines) + "\n"


def report_update(svids: Iterable[X509Svid], context: X509Context) -> dict[str, object]:
    """Return SVIDs and bundles for JSON; times are in UTC."""
    svids = tuple(svids)
    own = {svid.spiffe_id.trust_domain for svid in svids}
    return {
        "svids": [_report_svid(svid) for svid in svids],
        "bundles": [
            {
                "trust_domain": str(domain),
                "federated": domain not in own,
                "authorities": [_report_certificate(authority) for authority in bundle.authorities],
            }
            for domain, bundle in _in_order(context, own)
        ],
        "disabled": {str(domain): why for domain, why in context.bundles.disabled.items()},
        "skipped": list(context.skipped),
        "notes": list(context.notes),
    }


def _in_order(context: X509Context, own: set[TrustDomain]) -> list[tuple[TrustDomain, TrustBundle]]:
    return sorted(context.bundles.bundles.items(), key=lambda item: (item[0] not in own, item[0]))


def _describe_svid(svid: X509Svid, now: datetime) -> Iterator[str]:
    yield f"{svid.spiffe_id}{f' (hint {escape(svid.hint)})' if svid.hint else ''}"
    yield f"  serial   {serial_of(svid)}"
    yield f"  expires  {describe_distance(svid.not_after, now)}, {format_time(svid.not_after)}"
    yield f"  key      {describe_key(svid.private_key)}"
    for number, certificate in enumerate(svid.chain):
        until = format_time(certificate.not_after)
        yield f"  {'' if number else 'chain':8} {_describe_names(certificate)}, until {until}"


def _describe_names(certificate: Certificate) -> str:
    subject, issuer = (name or "(empty)" for name in (_subject_of(certificate), _issuer_of(certificate)))
    return f"subject {escape(subject)}, issuer {escape(issuer)}"


def _describe_bundle(bundle: TrustBundle, now: datetime) -> str:
    count = len(bundle.authorities)
    if not count:
        return "no authority, no peer of it is trusted"
    last = max(authority.not_after for authority in bundle.authorities)
    prefix = "1 authority, which expires" if count == 1 else f"{count} authorities, the last of which expires"
    return f"{prefix} {describe_distance(last, now)}, {format_time(last)}"


def _report_svid(svid: X509Svid) -> dict[str, object]:
    return {
        "spiffe_id": str(svid.spiffe_id),
        "hint": svid.hint,
        "serial": serial_of(svid),
        "expiry": format_time(svid.not_after),
        "key": describe_key(svid.private_key),
        "chain": [_report_certificate(certificate) for certificate in svid.chain],
    }


def _report_certificate(certificate: Certificate) -> dict[str, object]:
    return {
        "subject": _subject_of(certificate),
        "issuer": _issuer_of(certificate),
        "not_before": format_time(certificate.not_before),
        "not_after": format_time(certificate.not_after),
    }


_NAMES = {SERIAL_NUMBER: "serialNumber"}  # SPIRE sets it in the subject of its authorities


def _subject_of(certificate: Certificate) -> str:
    return certificate.subject.describe(_NAMES)


def _issuer_of(certificate: Certificate) -> str:
    return certificate.issuer.describe(_NAMES)
