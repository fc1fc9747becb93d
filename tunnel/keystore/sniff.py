"""Which format a keystore is in.

Knows the endings of names and the first bytes of formats; must not know how any is read. A known ending decides. Without
one the bytes do, and DER is told from PKCS#12 by what is in it, where ghostunnel goes by its length.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import Enum

from tunnel.errors import IdentityError, IdentityFault


class Format(Enum):
    """The formats of keystores, by the names that people know."""

    PEM = "PEM"
    PKCS12 = "PKCS#12"
    JAVA = "JKS or JCEKS"
    DER = "DER"


_ENDINGS: Mapping[str, Format] = {
    ".pem": Format.PEM,
    ".crt": Format.PEM,
    ".p7b": Format.PEM,
    ".p7c": Format.PEM,
    ".p12": Format.PKCS12,
    ".pfx": Format.PKCS12,
    ".jceks": Format.JAVA,
    ".jks": Format.JAVA,
    ".der": Format.DER,
}
_SEQUENCE = rb"\x30(?:[\x01-\x80]|\x81.|\x82..|\x83...|\x84....)"  # its tag and length, which BER may leave open
_BEGINNINGS: Mapping[Format, re.Pattern[bytes]] = {
    Format.JAVA: re.compile(rb"\xce\xce\xce\xce|\xfe\xed\xfe\xed"),
    Format.PKCS12: re.compile(_SEQUENCE + rb"\x02\x01\x03", re.DOTALL),  # RFC 7292, section 4: version 3
    Format.DER: re.compile(_SEQUENCE + rb"[\x06\x30]", re.DOTALL),  # a certificate, or the type of a PKCS#7 message
    Format.PEM: re.compile(rb"-----|CONN|(?s:.*)^-----BEGIN ", re.MULTILINE),  # CONNECTED: what openssl s_client prints
}


def parse_format(path: str, blob: bytes) -> Format:
    """The format of a keystore; raises IdentityError when nothing tells it, or when name and content disagree."""
    named = _ENDINGS.get(os.path.splitext(path)[1].lower())
    seen = next((form for form, beginning in _BEGINNINGS.items() if beginning.match(blob)), None)
    if named and seen and named is not seen:
        raise IdentityError(
            IdentityFault.FORMAT, f"its name says {named.value}, its content looks like {seen.value}; give it the right ending"
        )
    form = named or seen
    if form is None:
        raise IdentityError(
            IdentityFault.FORMAT,
            f"unable to guess file format: {'its name and first bytes do not tell' if blob else 'it is empty'};"
            " wanted PEM, PKCS#12, JKS or JCEKS",
        )
    return form
