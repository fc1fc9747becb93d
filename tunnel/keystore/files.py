"""Files with certificates and keys: reading within a limit, and detection of the format of a keystore."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

from tunnel.errors import IdentityError, IdentityFault, describe_os_error

MAX_FILE_BYTES = 50 * 1024 * 1024


def read_file(path: str) -> bytes:
    """Read a file (or a pipe) of at most MAX_FILE_BYTES; raises IdentityError that names the file."""
    try:
        with open(path, "rb") as file:
            blob = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        problem = describe_os_error(error) if isinstance(error, OSError) else str(error)
        raise IdentityError(IdentityFault.FILE, f"cannot read {path!a}: {problem}") from error
    if len(blob) > MAX_FILE_BYTES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"cannot read {path!a}: larger than {MAX_FILE_BYTES} bytes")
    return blob


@contextmanager
def prefix_errors(*paths: str) -> Iterator[None]:
    """Prefix each IdentityError raised inside with the names of the files."""
    try:
        yield
    except IdentityError as error:
        names = " and ".join(dict.fromkeys(f"{path!a}" for path in paths))
        raise IdentityError(error.reason, f"{names}: {error}") from error


# -- formats


class KeystoreFormat(Enum):
    """The formats of keystores; the value is for messages."""

    PEM = "PEM"
    PKCS12 = "PKCS#12"
    JAVA = "JKS or JCEKS"
    DER = "DER"


_EXTENSIONS: Mapping[str, KeystoreFormat] = {
    ".pem": KeystoreFormat.PEM,
    ".crt": KeystoreFormat.PEM,
    ".p7b": KeystoreFormat.PEM,
    ".p7c": KeystoreFormat.PEM,
    ".p12": KeystoreFormat.PKCS12,
    ".pfx": KeystoreFormat.PKCS12,
    ".jceks": KeystoreFormat.JAVA,
    ".jks": KeystoreFormat.JAVA,
    ".der": KeystoreFormat.DER,
}
_SEQUENCE = rb"\x30(?:[\x01-\x80]|\x81.|\x82..|\x83...|\x84....)"  # tag and length, which may be indefinite in BER
_MAGIC: Mapping[KeystoreFormat, re.Pattern[bytes]] = {
    KeystoreFormat.JAVA: re.compile(rb"\xce\xce\xce\xce|\xfe\xed\xfe\xed"),
    KeystoreFormat.PKCS12: re.compile(_SEQUENCE + rb"\x02\x01\x03", re.DOTALL),  # RFC 7292, section 4: version 3
    KeystoreFormat.DER: re.compile(_SEQUENCE + rb"[\x06\x30]", re.DOTALL),  # a certificate, or the OID of a PKCS#7 message
    KeystoreFormat.PEM: re.compile(rb"-----|CONN|(?s:.*)^-----BEGIN ", re.MULTILINE),  # CONNECTED: output of openssl s_client
}


def detect_format(path: str, blob: bytes) -> KeystoreFormat:
    """Return the format of a keystore, by its extension, else by its first bytes.

    DER and PKCS#12 are distinguished by content, not by size as in ghostunnel. Raises IdentityError if the format is
    unknown, or if extension and content disagree.
    """
    named = _EXTENSIONS.get(os.path.splitext(path)[1].lower())
    seen = next((form for form, magic in _MAGIC.items() if magic.match(blob)), None)
    if named and seen and named is not seen:
        raise IdentityError(
            IdentityFault.FORMAT,
            f"the extension means {named.value}, but the content is {seen.value}; expected the same",
        )
    form = named or seen
    if form is None:
        raise IdentityError(
            IdentityFault.FORMAT,
            f"unable to guess file format: {'unknown extension and content' if blob else 'empty file'};"
            " expected PEM, PKCS#12, JKS or JCEKS",
        )
    return form
