"""Checks certificate files: whether a proxy can load them, their modes, validity, purpose and authorities."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial

from tunnel.authz.peer import parse_peer
from tunnel.check.finding import Finding, Steps, ok, problem, warning
from tunnel.check.identity import has_valid
from tunnel.check.preflight import READ_LIMIT, Preflight, within
from tunnel.check.validity import check_validity, validity_of
from tunnel.config.model import KeyFiles, Keystore, NoIdentity
from tunnel.errors import IdentityError, IdentityFault, PeerDenied
from tunnel.identity.credentials import PkiCredentials, describe_key
from tunnel.listener.generation import authority_name_warnings, check_presentable
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.extensions import CLIENT_AUTH, SERVER_AUTH
from tunnel.proxy.file_source import load_credentials
from tunnel.tls.verify import build_pki_anchors, check_purpose

CERTIFICATE, AUTHORITIES = "certificate", "authorities"
_ADVICE = {
    IdentityFault.FILE: "correct the path, or let this user read it (ls -l, also for every directory above)",
    IdentityFault.PASSWORD: "set the right password in $KEYSTORE_PASS",
    IdentityFault.BAD_KEY: "use the private key that belongs to the certificate",
}
_SHOWN = 4

DiskSource = KeyFiles | Keystore | NoIdentity


def examine_files(preflight: Preflight, source: DiskSource) -> Steps[PkiCredentials | None]:
    """Return the credentials in the files, or None if they are not usable."""
    yield from _examine_modes(source)
    try:
        credentials = within(READ_LIMIT, partial(load_credentials, preflight.config.identity, preflight.environ))
    except IdentityError as error:
        advice = _ADVICE.get(error.reason, "use a file with the content that the flag describes")
        yield problem(CERTIFICATE, f"{error.reason.value}: {error}", advice)
        return None
    except TimeoutError as error:
        yield problem(CERTIFICATE, f"cannot read the files: {error}", "check whether one is a pipe, or on a remote file system")
        return None
    try:
        check_presentable(credentials, preflight.config.tls)
    except IdentityError as error:
        yield problem(CERTIFICATE, f"{error.reason.value}: {error}", "use a certificate that OpenSSL can present")
        return None
    if credentials.chain and credentials.private_key is not None:
        names = _describe_names(credentials.chain[0])
        length = f"chain of {len(credentials.chain)}"
        yield ok(CERTIFICATE, f"{names}, {length}, key ({describe_key(credentials.private_key)}) matches")
        yield check_validity("expiry", validity_of(credentials.chain), preflight.now, "renew the certificate")
        yield from _examine_purpose(preflight, credentials.chain[0])
    else:
        yield ok(CERTIFICATE, "none is presented")
    yield from (
        warning(AUTHORITIES, failure, "replace it: no certificate signed by it verifies") for failure in credentials.skipped
    )
    yield from _examine_authorities(preflight, credentials)
    return credentials


def _examine_modes(source: DiskSource) -> Iterator[Finding]:
    if isinstance(source, NoIdentity):
        return
    path = source.path if isinstance(source, Keystore) else source.key
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, ValueError):
        return  # loading the file reports it
    if mode & 0o077:
        detail = f"{path} holds a private key and has mode {mode:04o}"
        yield warning("key-file", detail, "remove access for other users (chmod 600), unless a group needs it")
    else:
        yield ok("key-file", f"{path} is accessible to its owner only (mode {mode:04o})")


def _describe_names(leaf: Certificate) -> str:
    try:
        peer = parse_peer(leaf, None)
    except PeerDenied as error:
        return f"certificate with unreadable names ({error})"
    names = [*peer.dns_names, *map(str, peer.ip_addresses), *peer.uris]
    more = ", ..." if len(names) > _SHOWN else ""
    shown = f" for {', '.join(names[:_SHOWN])}{more}" if names else ""
    return f"{peer.subject or 'no subject'}{shown}"


def _examine_purpose(preflight: Preflight, leaf: Certificate) -> Iterator[Finding]:
    """Check what peers require of the certificate."""
    is_server = preflight.config.is_server
    try:
        check_purpose(leaf, SERVER_AUTH if is_server else CLIENT_AUTH)
        peer = parse_peer(leaf, None)
    except PeerDenied as error:
        yield warning(CERTIFICATE, str(error), f"{preflight.peer}s will refuse it: use a certificate for this purpose")
        return
    if is_server and not (peer.dns_names or peer.ip_addresses or peer.uris):
        advice = "clients that verify the host name will refuse it: they ignore the common name"
        yield warning(CERTIFICATE, "no DNS name and no IP address", advice)


def _examine_authorities(preflight: Preflight, credentials: PkiCredentials) -> Iterator[Finding]:
    config = preflight.config
    if config.access.pins or (config.is_server and not config.access.is_mutual):
        yield ok(AUTHORITIES, "not needed: no certificate is verified against an authority")
        return
    if config.is_server:
        for note in authority_name_warnings(build_pki_anchors(credentials.authorities).usable):
            yield warning(AUTHORITIES, note, "configure fewer authorities if clients select their certificate by these names")
    yield _count_authorities(preflight, credentials.authorities)


def _count_authorities(preflight: Preflight, authorities: tuple[Certificate, ...]) -> Finding:
    config = preflight.config
    where = config.identity.ca_bundle or "the system store"
    if not authorities:
        return problem(AUTHORITIES, f"no authority in {where}: no {preflight.peer} verifies", "set --cacert FILE")
    if not has_valid(authorities, preflight.now):
        return problem(
            AUTHORITIES, f"no valid authority in {where}: no {preflight.peer} verifies", "set --cacert FILE with newer ones"
        )
    if not config.identity.ca_bundle:
        detail = f"{len(authorities)} in the system store: public web authorities verify {preflight.peer}s"
        return warning(AUTHORITIES, detail, "set --cacert FILE to your own") if config.is_server else ok(AUTHORITIES, detail)
    return ok(AUTHORITIES, f"{len(authorities)} in {where}")
