"""Secrets in files that are damaged in every way, and a search for them in what a program says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Damage = Callable[[bytes], bytes]


def body_of(pem: bytes) -> bytes:
    """The base64 of a PEM text."""
    return b"".join(line for line in pem.splitlines() if not line.startswith(b"-----") and b":" not in line)


def pieces_of(secret: bytes) -> frozenset[str]:
    """Every eight characters of a secret: of a PEM text its base64, of other bytes their hexadecimal digits and their text."""
    if b"-----" in secret:
        return _windows(body_of(secret).decode())
    return _windows(secret.hex()) | _windows(secret.decode("latin-1"))


def found_in(said: str, pieces: Iterable[str]) -> list[str]:
    """The pieces that have been said."""
    return [piece for piece in pieces if piece in said]


def _windows(text: str) -> frozenset[str]:
    return frozenset(text[at : at + 8] for at in range(len(text) - 7))


def _cut(share: float) -> Damage:
    return lambda pem: pem[: int(len(pem) * share)]


def _after_begin(text: bytes) -> Damage:
    return lambda pem: re.sub(rb"(-----BEGIN [A-Z ]+-----\n)", lambda found: found[1] + text, pem)


DAMAGE: dict[str, Damage] = {
    "line breaks written out": lambda pem: pem.strip().replace(b"\n", b"\\n") + b"\n",
    "CRLF written out": lambda pem: pem.strip().replace(b"\n", b"\\r\\n"),
    "CR alone and one bit": lambda pem: pem.replace(b"\n", b"\r").replace(b"A", b"B", 3),
    "CRLF and one character less": lambda pem: pem.replace(b"A", b"", 1).replace(b"\n", b"\r\n"),
    "blanks for line breaks": lambda pem: pem.replace(b"\n", b" ").replace(b"A", b"", 1),
    "one line": lambda pem: pem.replace(b"\n", b"").replace(b"A", b"", 1),
    "quoted": lambda pem: b'"' + pem.replace(b"\n", b"\\n") + b'"',
    "a value of YAML": lambda pem: b"key: |\n" + b"".join(b"  " + line + b"\n" for line in pem.splitlines())[:-9],
    "no BEGIN": lambda pem: pem.partition(b"\n")[2],
    "no END": lambda pem: pem[: pem.rindex(b"-----END")],
    "only the body": body_of,
    "four hyphens": lambda pem: pem.replace(b"-----", b"----"),
    "no hyphens behind BEGIN": lambda pem: pem.replace(b"KEY-----", b"KEY ", 1),
    "labels of a certificate": lambda pem: re.sub(rb"(BEGIN|END) [A-Z ]+", rb"\1 CERTIFICATE", pem),
    "labels of nothing": lambda pem: re.sub(rb"(BEGIN|END) [A-Z ]+", rb"\1 NOTHING", pem),
    "labels of another key": lambda pem: re.sub(rb"(BEGIN|END) [A-Z ]*KEY", rb"\1 RSA PRIVATE KEY", pem),
    "labels that differ": lambda pem: re.sub(rb"END [A-Z ]+", b"END X", pem),
    "the body in the label": lambda pem: b"-----BEGIN %b PRIVATE KEY-----\n" % body_of(pem),
    "the body as the label": lambda pem: b"-----BEGIN %b-----\nx\n-----END %b-----\n" % (body_of(pem)[:60], body_of(pem)[:60]),
    "the body as a header": lambda pem: _after_begin(body_of(pem) + b": 1\n\n")(pem),
    "Proc-Type without a cipher": _after_begin(b"Proc-Type: 4,ENCRYPTED\n\n"),
    "Proc-Type and an unknown cipher": _after_begin(b"Proc-Type: 4,ENCRYPTED\nDEK-Info: NONE-256,00\n\n"),
    "other headers": _after_begin(b"X: y\n\n!"),
    "other characters": lambda pem: pem.replace(body_of(pem)[20:24], b"\xff\x00\x1b[", 1),
    "a byte order mark and UTF-16": lambda pem: pem.decode("latin-1").encode("utf-16"),
    "UTF-16 without a mark": lambda pem: pem.decode("latin-1").encode("utf-16-le"),
    "a byte order mark in the middle": lambda pem: pem.replace(b"\n", b"\n\xef\xbb\xbf", 2),
    **{f"cut at {share:.0%}": _cut(share) for share in (0.02, 0.1, 0.3, 0.6, 0.9, 0.97)},
}
