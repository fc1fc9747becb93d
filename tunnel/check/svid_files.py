"""Reads the files of `svid verify`: certificates, a private key, a trust bundle. Every error names its file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

from tunnel.errors import IdentityError, IdentityFault, WireError
from tunnel.keystore.files import MAX_FILE_BYTES, prefix_errors, read_file
from tunnel.keystore.pem import describe, find_key, parse_blocks, parse_chain, parse_key
from tunnel.pkix.certificate import Certificate, parse_certificates
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain

STDIN = "-"
_PEM = b"-----BEGIN "


def read_path(name: str) -> Sequence[Certificate]:
    """Return the certificates in a file, leaf first, at least one: PEM, or concatenated DER; raises IdentityError."""
    blob = _read(name)
    with _naming(name):
        return _parse_pem(blob) if _PEM in blob else _parse_der(blob)


def read_public_key(name: str) -> object:
    """Return the public key of the private key in a PEM file; raises IdentityError."""
    blocks = parse_blocks(_read(name))
    with _naming(name):
        block = find_key(blocks)
        if block is None:
            raise IdentityError(IdentityFault.BAD_KEY, f"no PRIVATE KEY block, {describe(blocks)}")
        return parse_key(block).public_key()


def read_authorities(name: str, trust_domain: TrustDomain) -> BundleSet:
    """Return a file as the bundle of one trust domain; raises IdentityError."""
    return BundleSet({trust_domain: TrustBundle(trust_domain, tuple(read_path(name)))})


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read(MAX_FILE_BYTES) if name == STDIN else read_file(name)


def _naming(name: str) -> AbstractContextManager[None]:
    return prefix_errors("standard input" if name == STDIN else name)


def _parse_pem(blob: bytes) -> Sequence[Certificate]:
    blocks = parse_blocks(blob)
    path = parse_chain(blocks)
    if not path:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"no CERTIFICATE block, {describe(blocks)}")
    return path


def _parse_der(blob: bytes) -> Sequence[Certificate]:
    try:
        path = parse_certificates(blob)
    except WireError as error:
        raise IdentityError(IdentityFault.FORMAT, f"neither PEM nor DER: {error}") from error
    if not path:
        raise IdentityError(IdentityFault.FORMAT, "empty; expected a certificate in PEM or DER")
    return path
