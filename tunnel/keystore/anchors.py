"""Loading of trust anchors: from a CA file, or those of the system. Blocks on file access.

Every certificate that can be parsed is an anchor. Others are skipped, because large bundles contain invalid ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from tunnel.errors import IdentityError, IdentityFault, PeerDenied
from tunnel.keystore.files import prefix_errors, read_file
from tunnel.keystore.pem import describe, parse_blocks, parse_certificate
from tunnel.lazy_dataclass import dataclass
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import describe_certificate
from tunnel.pkix.strength import check_key_strength

FILE_VARIABLE = "SSL_CERT_FILE"
DIRECTORY_VARIABLE = "SSL_CERT_DIR"
# The bundles of Linux systems in the order of Go (crypto/x509): the first that exists is used.
_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL 6
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/pki/tls/cacert.pem",  # OpenELEC
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # CentOS, RHEL 7
    "/etc/ssl/cert.pem",  # Alpine
)
_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")  # every file in these is used

Certificates = tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class Authorities:
    """The trusted certificates, and why certificates of a file were skipped."""

    certificates: Certificates
    skipped: tuple[str, ...] = ()


def load_authorities(path: str, environ: Mapping[str, str]) -> Authorities:
    """Load at least one from a file, or those of the system if `path` is empty; raises IdentityError that names the file."""
    if not path:
        return Authorities(load_system_anchors(environ))
    blob = read_file(path)
    found = _read_authorities(blob)
    if not found.certificates:
        with prefix_errors(path):
            seen = describe(parse_blocks(blob))
            raise IdentityError(
                IdentityFault.BAD_BUNDLE, f"unable to read certificates from CA bundle: no complete CERTIFICATE block: {seen}"
            )
    return Authorities(found.certificates, tuple(f"{path}: certificate skipped: {why}" for why in found.skipped))


def load_system_anchors(environ: Mapping[str, str]) -> Certificates:
    """Load the trust anchors of the system, found as Go does; there may be none.

    SSL_CERT_FILE and SSL_CERT_DIR in `environ` replace the default file and directories. Raises IdentityError if an existing
    file cannot be read and no anchor is found elsewhere.
    """
    found, refusal = _first_bundle([environ[FILE_VARIABLE]] if environ.get(FILE_VARIABLE) else _FILES)
    directories = environ[DIRECTORY_VARIABLE].split(":") if environ.get(DIRECTORY_VARIABLE) else _DIRECTORIES
    for directory in directories:
        for path in _certificate_files(directory):
            found += _readable_anchors(path)
    if refusal and not found:
        raise refusal
    return tuple(dict.fromkeys(found))


def parse_anchors(blob: bytes) -> Certificates:
    """Return every certificate that can be parsed, without duplicates."""
    return _read_authorities(blob).certificates


def _read_authorities(blob: bytes) -> Authorities:
    """Return every certificate that can be parsed, without duplicates, and why each other one was skipped."""
    found, skipped = [], []
    for block in parse_blocks(blob):
        if block.is_certificate:
            try:
                certificate = parse_certificate(block)
                found.append(certificate)
                check_key_strength(certificate)
            except IdentityError as error:
                skipped.append(str(error))
            except PeerDenied as denied:
                skipped.append(f"line {block.line}: {describe_certificate(certificate)}: {denied}")
    return Authorities(tuple(dict.fromkeys(found)), tuple(skipped))


def _first_bundle(paths: Iterable[str]) -> tuple[Certificates, IdentityError | None]:
    """Return the certificates of the first readable file, or the error of the first existing one."""
    refusal = None
    for path in paths:
        try:
            return parse_anchors(read_file(path)), None
        except IdentityError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                refusal = refusal or error
    return (), refusal


def _certificate_files(directory: str) -> Iterator[str]:
    """Yield the files of a directory in order, without symbolic links to its own files (links by hash)."""
    try:
        with os.scandir(directory) as entries:
            files = sorted(entry.path for entry in entries if entry.is_file())
        yield from (path for path in files if not (os.path.islink(path) and "/" not in os.readlink(path)))
    except (OSError, ValueError):  # missing, or changed during the scan
        return


def _readable_anchors(path: str) -> Certificates:
    try:
        return parse_anchors(read_file(path))
    except IdentityError:
        return ()
