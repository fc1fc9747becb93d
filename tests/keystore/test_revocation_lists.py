"""Files with revocation lists: PEM or DER, several lists and several files; one that cannot be used is an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.cert_factory import authority, key_of
from tests.support.odd_certificates.raw_der import extension, integer
from tests.support.revocation_lists import DELTA, NUMBERED, as_pem, encode_list
from tunnel.config.model import Revocation
from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore import revocation_lists
from tunnel.keystore.revocation_lists import load_lists, load_revocation
from tunnel.pkix.crl import parse_revocation_list
from tunnel.pkix.revocation import RevocationLists

ROOT, OTHER = authority(key=key_of("p256", 540)), authority("b.test", key=key_of("p256", 541))
FIRST, SECOND, THIRD = encode_list(ROOT, 1), encode_list(OTHER, 2), encode_list(ROOT, 3)
DELTA_LIST = encode_list(ROOT, extensions=[NUMBERED, extension(DELTA, integer(1), critical=True)])


def written(directory: Path, *blobs: bytes) -> list[str]:
    paths = [directory / f"{number}.crl" for number, _ in enumerate(blobs)]
    for path, blob in zip(paths, blobs, strict=True):
        path.write_bytes(blob)
    return [str(path) for path in paths]


@pytest.mark.parametrize(
    ("blobs", "expected"),
    [
        ([FIRST], [FIRST]),
        ([as_pem(FIRST)], [FIRST]),
        ([FIRST + SECOND], [FIRST, SECOND]),
        ([as_pem(FIRST) + b"some text\n" + ROOT.certificate.pem + as_pem(SECOND)], [FIRST, SECOND]),
        ([b"0 lists before this line\n" + as_pem(FIRST)], [FIRST]),
        ([as_pem(FIRST).replace(b"\n", b"\r\n"), SECOND, as_pem(FIRST) + as_pem(THIRD)], [FIRST, SECOND, THIRD]),
    ],
    ids=["der", "pem", "two-der", "among-other-blocks", "text-that-begins-with-0", "several-files"],
)
def test_every_list_of_every_file_is_loaded_once(tmp_path: Path, blobs: Sequence[bytes], expected: Sequence[bytes]) -> None:
    assert load_lists(written(tmp_path, *blobs)) == tuple(map(parse_revocation_list, expected))


@pytest.mark.parametrize(
    ("blob", "problem"),
    [
        (b"", "no X509 CRL block: found no PEM block"),
        (ROOT.certificate.pem, "no X509 CRL block: found only 'CERTIFICATE'"),
        (as_pem(FIRST)[:-20], "line 1: damaged or truncated revocation list"),
        (as_pem(FIRST).replace(b"M", b"?"), "line 1: damaged or truncated revocation list"),
        (as_pem(FIRST) + as_pem(FIRST[:-5]), "not a revocation list: "),
        (FIRST[:-1], "not revocation lists: "),
        (FIRST + b"\n", "not revocation lists: "),
        (FIRST + ROOT.der, "list 2: not a revocation list: "),
        (as_pem(DELTA_LIST), "cannot be used: it is a delta list; expected a complete list"),
        (FIRST + DELTA_LIST, "list 2: the revocation list of 'CN=authority of a.test' cannot be used: it is a delta list"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path, blob: bytes, problem: str) -> None:
    with pytest.raises(IdentityError) as refused:
        load_lists(written(tmp_path, SECOND, blob))
    assert refused.value.reason is IdentityFault.BAD_REVOCATION_LIST
    assert problem in str(refused.value)
    assert "1.crl" in str(refused.value)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"none\.crl"):
        load_lists([str(tmp_path / "none.crl")])


def test_the_number_of_lists_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_lists, "MAX_LISTS", 1)
    with pytest.raises(IdentityError, match=r"1\.crl.*more than 1 revocation lists"):
        load_lists(written(tmp_path, FIRST, SECOND))


def test_files_make_a_list_of_every_issuer_necessary(tmp_path: Path) -> None:
    assert load_revocation(Revocation()) == RevocationLists()
    lists = (parse_revocation_list(FIRST),)
    paths = tuple(written(tmp_path, FIRST))
    assert load_revocation(Revocation(paths)) == RevocationLists(lists, is_complete=True)
    assert load_revocation(Revocation(paths, is_required=False)) == RevocationLists(lists, False, True)
