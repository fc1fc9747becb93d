"""Redaction of secrets in a command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

SECRETS = ("--storepass", "--pkcs11-pin")  # literals, because no declarations are loaded here; a test compares them
_CREDENTIALS = re.compile(r"(?<=://)[^/]*@")  # of a URL (RFC 3986, 3.2.1): up to the last @, as in our parser
_HIDDEN = "(hidden)"


def redact(argv: Sequence[str]) -> tuple[str, ...]:
    """The arguments without passwords, PINs and the credentials of URLs."""
    return tuple(_redacted(argv))


def _redacted(argv: Sequence[str]) -> Iterator[str]:
    is_secret = False
    for argument in argv:
        name, equals, _value = argument.partition("=")
        if is_secret:
            yield _HIDDEN
        elif name in SECRETS and equals:
            yield f"{name}={_HIDDEN}"
        else:
            yield _CREDENTIALS.sub(f"{_HIDDEN}@", argument)
        is_secret = name in SECRETS and not equals and not is_secret
