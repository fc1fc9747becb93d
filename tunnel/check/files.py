"""Certificates in files: whether they can be used, and for how long.

Knows what a proxy reads at its start and what peers will ask of it; must not know formats. The files are read by the proxy's
own loader.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial

from tunnel.authz.peer import parse_peer
from tunnel.check.case import Case
from tunnel.check.finding import Finding, Steps, ok, problem, warning
from tunnel.check.identity import has_living
from tunnel.check.limits import within
from tunnel.check.spans import judge_dates, span_of_chain
from tunnel.config.model import Keystore, NoIdentity
from tunnel.errors import IdentityError, IdentityFault, PeerDenied
from tunnel.identity.credentials import PkiCredentials, describe_key
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.extensions import CLIENT_AUTH, SERVER_AUTH
from tunnel.proxy.file_source import DiskSource, load_credentials
from tunnel.proxy.generation import check_presentable, note_names
from tunnel.tls.verify import build_pki_anchors, check_purpose

CERTIFICATE, AUTHORITIES = "certificate", "authorities"
_READ = 10.0  # seconds: a file may be a pipe, or on another machine
_ADVICE = {
    IdentityFault.FILE: "mend the path, or let this user read it (ls -l, and every directory above)",
    IdentityFault.PASSWORD: "give the right one in $KEYSTORE_PASS",
    IdentityFault.BAD_KEY: "put the key there that the certificate was made for",
}
_SHOWN = 4


def examine_files(case: Case, source: DiskSource) -> Steps[PkiCredentials | None]:
    """What the files hold, or None when they cannot be used."""
    yield from _look_at_modes(source)
    try:
        credentials = within(_READ, partial(load_credentials, source, case.config.ca_bundle, case.environ))
    except IdentityError as error:
        advice = _ADVICE.get(error.reason, "put a file there that holds what the flag says")
        yield problem(CERTIFICATE, f"{error.reason.value}: {error}", advice)
        return None
    except TimeoutError as error:
        yield problem(CERTIFICATE, f"the files cannot be read: {error}", "is one of them a pipe, or on a machine that is away?")
        return None
    try:
        check_presentable(credentials, case.config.tls)
    except IdentityError as error:
        yield problem(CERTIFICATE, f"{error.reason.value}: {error}", "have a certificate issued that OpenSSL can present")
        return None
    if credentials.chain and credentials.private_key is not None:
        names = _names(credentials.chain[0])
        many = f"chain of {len(credentials.chain)}"
        yield ok(CERTIFICATE, f"{names}, {many}, its key ({describe_key(credentials.private_key)}) fits")
        yield judge_dates("expiry", span_of_chain(credentials.chain), case.now, "renew the certificate")
        yield from _look_at_purpose(case, credentials.chain[0])
    else:
        yield ok(CERTIFICATE, "none is shown")
    yield from (
        warning(AUTHORITIES, failure, "replace it: nothing that it has signed verifies") for failure in credentials.left_out
    )
    yield from _look_at_authorities(case, credentials)
    return credentials


def _look_at_modes(source: DiskSource) -> Iterator[Finding]:
    if isinstance(source, NoIdentity):
        return
    path = source.path if isinstance(source, Keystore) else source.key
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, ValueError):
        return  # whoever reads it says why
    if mode & 0o077:
        seen = f"{path} holds a key, and has mode {mode:04o}"
        yield warning("key-file", seen, "keep it from other users: chmod 600, unless a group is meant")
    else:
        yield ok("key-file", f"{path} is this user's alone (mode {mode:04o})")


def _names(leaf: Certificate) -> str:
    try:
        peer = parse_peer(leaf, None)
    except PeerDenied as error:
        return f"a certificate whose names cannot be read ({error})"
    names = [*peer.dns_names, *map(str, peer.ip_addresses), *peer.uris]
    more = ", ..." if len(names) > _SHOWN else ""
    shown = f" for {', '.join(names[:_SHOWN])}{more}" if names else ""
    return f"{peer.subject or 'no subject'}{shown}"


def _look_at_purpose(case: Case, leaf: Certificate) -> Iterator[Finding]:
    """What peers will ask of the certificate, so that it is known before they do."""
    is_server = case.config.is_server
    try:
        check_purpose(leaf, SERVER_AUTH if is_server else CLIENT_AUTH)
        peer = parse_peer(leaf, None)
    except PeerDenied as error:
        yield warning(CERTIFICATE, str(error), f"{case.peer}s will refuse it: have one issued for this purpose")
        return
    if is_server and not (peer.dns_names or peer.ip_addresses or peer.uris):
        advice = "clients that verify the host name will refuse it: a common name does not count"
        yield warning(CERTIFICATE, "it has no DNS name and no IP address", advice)


def _look_at_authorities(case: Case, credentials: PkiCredentials) -> Iterator[Finding]:
    config = case.config
    if config.access.pins or (config.is_server and not config.access.is_mutual):
        yield ok(AUTHORITIES, "not needed: no certificate is verified by one")
        return
    if config.is_server:
        for note in note_names(build_pki_anchors(credentials.authorities).usable):
            yield warning(AUTHORITIES, note, "give fewer authorities, if clients choose their certificate by these names")
    yield _count_authorities(case, credentials.authorities)


def _count_authorities(case: Case, authorities: tuple[Certificate, ...]) -> Finding:
    config = case.config
    where = config.ca_bundle or "the system"
    if not authorities:
        return problem(AUTHORITIES, f"{where} has none, so no {case.peer} verifies", "say --cacert FILE")
    if not has_living(authorities, case.now):
        return problem(
            AUTHORITIES, f"none of {where} is valid now, so no {case.peer} verifies", "give newer ones by --cacert FILE"
        )
    if not config.ca_bundle:
        seen = f"{len(authorities)} of the system: the web's authorities vouch for {case.peer}s"
        return warning(AUTHORITIES, seen, "say --cacert FILE with your own") if config.is_server else ok(AUTHORITIES, seen)
    return ok(AUTHORITIES, f"{len(authorities)} in {where}")
