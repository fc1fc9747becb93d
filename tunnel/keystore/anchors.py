"""The certificates that we trust: a file of the operator's, or those of the system.

Knows what counts as an anchor, every certificate that can be read, and where systems keep theirs; must not know how a path
is checked. What cannot be read is passed over, since a bundle of many has its odd ones. Blocks, so a caller that must not
wait calls it in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tunnel.errors import IdentityError, IdentityFault, PeerDenied
from tunnel.keystore.disk import naming, read_file
from tunnel.keystore.pem import describe, parse_blocks, parse_certificate
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import describe_certificate
from tunnel.pkix.strength import check_key_strength

FILE_VARIABLE = "SSL_CERT_FILE"
DIRECTORY_VARIABLE = "SSL_CERT_DIR"
# Where Linux systems keep their bundle, in the order in which Go looks for it (crypto/x509): the first that is there.
_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL 6
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/pki/tls/cacert.pem",  # OpenELEC
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # CentOS, RHEL 7
    "/etc/ssl/cert.pem",  # Alpine
)
_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")  # and all of what is in these

Certificates = tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class Authorities:
    """The certificates that we trust, and which of a file cannot be used, with the reason."""

    certificates: Certificates
    left_out: tuple[str, ...] = ()


def load_authorities(path: str, environ: Mapping[str, str]) -> Authorities:
    """Those of a file, at least one, or of the system if no file is named; raises IdentityError that names the file."""
    if not path:
        return Authorities(load_system_anchors(environ))
    blob = read_file(path)
    found = _read_authorities(blob)
    if not found.certificates:
        with naming(path):
            seen = describe(parse_blocks(blob))
            raise IdentityError(
                IdentityFault.BAD_BUNDLE, f"unable to read certificates from CA bundle: no whole CERTIFICATE block, {seen}"
            )
    return Authorities(found.certificates, tuple(f"{path}: a certificate is left out: {why}" for why in found.left_out))


def load_system_anchors(environ: Mapping[str, str]) -> Certificates:
    """What this system trusts, as Go finds it; perhaps nothing, if there is nothing.

    Where `environ` names a file or directories (separated by colons), these stand in for the usual ones. Raises
    IdentityError when a file that is there cannot be read and nothing else was found.
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
    """Every certificate in PEM that can be read, each once."""
    return _read_authorities(blob).certificates


def _read_authorities(blob: bytes) -> Authorities:
    """Every certificate in PEM that can be read, each once, and why each one that is no anchor cannot be used."""
    found, left_out = [], []
    for block in parse_blocks(blob):
        if block.is_certificate:
            try:
                certificate = parse_certificate(block)
                found.append(certificate)
                check_key_strength(certificate)
            except IdentityError as error:
                left_out.append(str(error))
            except PeerDenied as denied:
                left_out.append(f"line {block.line}: {describe_certificate(certificate)}: {denied}")
    return Authorities(tuple(dict.fromkeys(found)), tuple(left_out))


def _first_bundle(paths: Iterable[str]) -> tuple[Certificates, IdentityError | None]:
    """The first file that can be read; else why the first that is there cannot."""
    refusal = None
    for path in paths:
        try:
            return parse_anchors(read_file(path)), None
        except IdentityError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                refusal = refusal or error
    return (), refusal


def _certificate_files(directory: str) -> Iterator[str]:
    """The files of a directory by name, without the second names (links by hash) that it has for its own files."""
    try:
        with os.scandir(directory) as entries:
            files = sorted(entry.path for entry in entries if entry.is_file())
        yield from (path for path in files if not (os.path.islink(path) and "/" not in os.readlink(path)))
    except (OSError, ValueError):  # not there, or changed while it was read
        return


def _readable_anchors(path: str) -> Certificates:
    try:
        return parse_anchors(read_file(path))
    except IdentityError:
        return ()
