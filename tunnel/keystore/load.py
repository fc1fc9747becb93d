"""Loading of our certificate chain and key: `--cert` and `--key`, or `--keystore`. Blocks on file access."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore.files import KeystoreFormat, detect_format, prefix_errors, read_file
from tunnel.keystore.material import KeyMaterial, make_material
from tunnel.keystore.pem import describe, find_key, parse_blocks, parse_chain, parse_key, parse_pem
from tunnel.pkix.certificate import Certificate


def load_cert_and_key(cert_path: str, key_path: str) -> KeyMaterial:
    """Load chain and key from two PEM files, which may be the same; raises IdentityError that names the file.

    The blocks of both files count, those of the certificate file first: either file may contain certificates and keys.
    """
    files = {path: parse_blocks(read_file(path)) for path in (cert_path, key_path)}
    chain: list[Certificate] = []
    for path, blocks in files.items():
        with prefix_errors(path):
            chain += parse_chain(blocks)
    if not chain:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"{cert_path!a}: no CERTIFICATE block: {describe(files[cert_path])}")
    for path, blocks in files.items():
        if block := find_key(blocks):
            with prefix_errors(path):
                key = parse_key(block)
            with prefix_errors(cert_path, key_path):
                return make_material(chain, key)
    raise IdentityError(IdentityFault.BAD_KEY, f"{key_path!a}: no PRIVATE KEY block: {describe(files[key_path])}")


def load_keystore(path: str, password: str) -> KeyMaterial:
    """Load chain and key from one file of any known format; raises IdentityError that names the file."""
    blob = read_file(path)
    with prefix_errors(path):
        return _PARSERS[detect_format(path, blob)](blob, password)


def _parse_pkcs12(blob: bytes, password: str) -> KeyMaterial:
    from tunnel.keystore.pkcs12 import parse_pkcs12  # it loads cryptography.x509: 20 ms and 3 MiB

    return parse_pkcs12(blob, password)


def _parse_java(blob: bytes, password: str) -> KeyMaterial:
    from tunnel.keystore.java import parse_java

    return parse_java(blob, password)


def _refuse_der(_blob: bytes, _password: str) -> KeyMaterial:
    raise IdentityError(
        IdentityFault.BAD_KEY,
        "a DER file contains no private key; expected PEM, PKCS#12, JKS or JCEKS, or --cert and --key",
    )


_PARSERS: Mapping[KeystoreFormat, Callable[[bytes, str], KeyMaterial]] = {
    KeystoreFormat.PEM: parse_pem,
    KeystoreFormat.PKCS12: _parse_pkcs12,
    KeystoreFormat.JAVA: _parse_java,
    KeystoreFormat.DER: _refuse_der,
}
