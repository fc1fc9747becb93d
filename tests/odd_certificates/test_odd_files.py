"""PEM files in odd forms: every certificate is read, or the file is refused, or the log says what is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.odd_certificates.factory import Names
from tests.support.odd_certificates.peers import pem_of
from tunnel.errors import IdentityError
from tunnel.keystore.anchors import load_authorities
from tunnel.keystore.pem import parse_blocks, parse_chain

_NAMES = Names("files")
_ROOT = _NAMES.root()
_MIDDLE = _NAMES.middle(_ROOT)
CHAIN = (_NAMES.leaf(_MIDDLE), _MIDDLE, _ROOT)
_TEXT = pem_of(CHAIN).encode()
_JOINT = b"-----\n-----BEGIN"
_FORMS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "no line break between blocks": lambda text: text.replace(_JOINT, b"----------BEGIN"),
    "no line break between the first two": lambda text: text.replace(_JOINT, b"----------BEGIN", 1),
    "a space between blocks": lambda text: text.replace(_JOINT, b"----- -----BEGIN"),
    "a letter between blocks": lambda text: text.replace(_JOINT, b"-----x-----BEGIN"),
    "CR LF": lambda text: text.replace(b"\n", b"\r\n"),
    "CR": lambda text: text.replace(b"\n", b"\r"),
    "blank lines everywhere": lambda text: text.replace(b"\n", b"\n\n"),
    "indented": lambda text: b"".join(b"    " + line for line in text.splitlines(keepends=True)),
    "written line breaks": lambda text: text.replace(b"\n", b"\\n"),
    "one line": lambda text: text.replace(b"\n", b" "),
    "an END is missing": lambda text: text.replace(b"-----END CERTIFICATE-----\n", b"", 1),
    "the first BEGIN is missing": lambda text: text.replace(b"-----BEGIN CERTIFICATE-----\n", b"", 1),
    "the last BEGIN is missing": lambda text: b"".join(text.rpartition(b"-----BEGIN CERTIFICATE-----\n")[::2]),
    "cut short": lambda text: text[:-60],
    "text between blocks": lambda text: text.replace(_JOINT, b"-----\nsubject=x\n-----BEGIN"),
    "no line break at the end": lambda text: text.rstrip(),
}
_WHOLE = {"as it is", "CR LF", "CR", "blank lines everywhere", "indented", "text between blocks", "no line break at the end"}


@pytest.mark.parametrize("form", _FORMS)
def test_a_chain_is_never_shortened(form: str) -> None:
    text = _FORMS[form](_TEXT)
    try:
        found = [one.der for one in parse_chain(parse_blocks(text))]
    except IdentityError:
        assert form not in _WHOLE
    else:
        assert found in ([], [one.der for one in CHAIN])  # a chain of nothing is refused where it is used
        assert found or form not in _WHOLE


@pytest.mark.parametrize("form", _FORMS)
def test_anchors_are_never_left_out_in_silence(tmp_path: Path, form: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(_FORMS[form](_TEXT))
    try:
        authorities = load_authorities(str(path), {})
    except IdentityError:
        assert form not in _WHOLE
    else:
        is_whole = [one.der for one in authorities.certificates] == [one.der for one in CHAIN]
        assert is_whole or authorities.skipped
        assert form not in _WHOLE or not authorities.skipped
