"""What `--cert` and `--key`, or `--keystore`, name: our certificate chain and our key.

Knows which files make up an identity; must not know how a format is read. Blocks, so a caller that must not wait calls it
in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore.disk import naming, read_file
from tunnel.keystore.java import parse_java
from tunnel.keystore.material import KeyMaterial, make_material
from tunnel.keystore.pem import describe, find_key, parse_blocks, parse_chain, parse_key, parse_pem
from tunnel.keystore.pkcs12 import parse_pkcs12
from tunnel.keystore.sniff import Format, parse_format
from tunnel.pkix.certificate import Certificate


def load_cert_and_key(cert_path: str, key_path: str) -> KeyMaterial:
    """Chain and key out of two files of PEM, or of one that is named twice; raises IdentityError that names the file.

    The blocks of both count, the certificate's file first: each may hold more than its name says.
    """
    files = {path: parse_blocks(read_file(path)) for path in (cert_path, key_path)}
    chain: list[Certificate] = []
    for path, blocks in files.items():
        with naming(path):
            chain += parse_chain(blocks)
    if not chain:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"{cert_path!a}: no CERTIFICATE block, {describe(files[cert_path])}")
    for path, blocks in files.items():
        if block := find_key(blocks):
            with naming(path):
                key = parse_key(block)
            with naming(cert_path, key_path):
                return make_material(chain, key)
    raise IdentityError(IdentityFault.BAD_KEY, f"{key_path!a}: no PRIVATE KEY block, {describe(files[key_path])}")


def load_keystore(path: str, password: str) -> KeyMaterial:
    """Chain and key out of one file of any known format; raises IdentityError that names the file."""
    blob = read_file(path)
    with naming(path):
        return _PARSERS[parse_format(path, blob)](blob, password)


def _refuse_der(_blob: bytes, _password: str) -> KeyMaterial:
    raise IdentityError(
        IdentityFault.BAD_KEY,
        "DER holds certificates or a PKCS#7 message, and never a private key with them; wanted PEM, PKCS#12, JKS or JCEKS,"
        " or --cert and --key",
    )


_PARSERS: Mapping[Format, Callable[[bytes, str], KeyMaterial]] = {
    Format.PEM: parse_pem,
    Format.PKCS12: parse_pkcs12,
    Format.JAVA: parse_java,
    Format.DER: _refuse_der,
}
