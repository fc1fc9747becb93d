"""Trust anchors: every readable certificate of a bundle; those of the system are found as in Go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import cert_factory
from tests.support.keystore_files import chain_of, key_pem, openssl, pem_of, refusal_of
from tunnel.errors import IdentityFault
from tunnel.keystore import anchors
from tunnel.keystore.anchors import load_authorities, load_system_anchors, parse_anchors

ROOTS = [cert_factory.authority(f"{name}.test") for name in "abc"]
A, B, C = (root.certificate for root in ROOTS)
PEM_A, PEM_B, PEM_C = map(pem_of, ROOTS)
BROKEN = PEM_B.replace(b"\nMII", b"\nMIJ", 1)
TRUSTED = openssl("x509", "-trustout", "-addreject", "serverAuth", stdin=PEM_B)


def write(path: Path, blob: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob)
    return path


@pytest.mark.parametrize(
    ("blob", "found"),
    [
        (PEM_A, (A,)),
        (PEM_A + PEM_B + PEM_C, (A, B, C)),
        (PEM_C + PEM_A, (C, A)),
        (PEM_A + PEM_A, (A,)),
        (PEM_A + BROKEN + PEM_C, (A, C)),
        (PEM_A + PEM_B[:200] + b"\n" + PEM_C, (A, C)),
        (PEM_A + PEM_B[:-60], (A,)),
        (PEM_A + TRUSTED, (A,)),  # it may say what it is not trusted for
        (key_pem(ROOTS[0].key) + PEM_A, (A,)),
        (b"# A comment\r\n" + PEM_A.replace(b"\n", b"\r\n"), (A,)),
        (pem_of(chain_of("p256").intermediate), (chain_of("p256").intermediate.certificate,)),
    ],
)
def test_every_readable_certificate_is_an_anchor(tmp_path: Path, blob: bytes, found: tuple) -> None:
    assert load_authorities(str(write(tmp_path / "ca.pem", blob)), {}).certificates == found


@pytest.mark.parametrize(
    ("blob", "seen"),
    [
        (b"", "found no PEM block (a block begins at the start of a line)"),
        (ROOTS[0].der, "found no PEM block (a block begins at the start of a line)"),
        (BROKEN, "only 'CERTIFICATE'"),
        (TRUSTED, "only 'TRUSTED CERTIFICATE'"),
        (key_pem(ROOTS[0].key), "only 'PRIVATE KEY'"),
        (b"".join(b"-----BEGIN %d-----\n" % number for number in range(9)), "found only a block of another type"),
    ],
)
def test_a_bundle_without_a_certificate_is_refused(tmp_path: Path, blob: bytes, seen: str) -> None:
    path = write(tmp_path / "ca.pem", blob)
    reason, message = refusal_of(load_authorities, str(path), {})
    assert reason is IdentityFault.BAD_BUNDLE
    assert message.startswith(f"{str(path)!a}: unable to read certificates from CA bundle")
    assert message.endswith(seen)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    reason, message = refusal_of(load_authorities, str(tmp_path / "none"), {})
    assert (reason, message) == (IdentityFault.FILE, f"cannot read {str(tmp_path / 'none')!a}: no such file or directory")


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_noise_around_a_certificate_is_ignored(before: bytes, after: bytes) -> None:
    assert parse_anchors(before + b"\n" + PEM_A + after)[-1] == A


def test_a_truncated_bundle_has_its_complete_certificates() -> None:
    whole = PEM_A + PEM_B
    for cut in range(len(whole)):
        whole_ones = (cut >= len(PEM_A) - 1) + (cut >= len(whole) - 1)  # a last newline need not be there
        assert parse_anchors(whole[:cut]) == (A, B)[:whole_ones]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system with two default bundle files and two default directories, all empty."""
    monkeypatch.setattr(anchors, "_FILES", (str(tmp_path / "first.crt"), str(tmp_path / "second.crt")))
    monkeypatch.setattr(anchors, "_DIRECTORIES", (str(tmp_path / "certs"), str(tmp_path / "more")))
    return tmp_path


def test_a_system_may_have_no_anchors(places: Path) -> None:
    assert load_system_anchors({}) == ()


def test_the_first_existing_bundle_is_used(places: Path) -> None:
    write(places / "second.crt", PEM_B)
    assert load_system_anchors({}) == (B,)
    write(places / "first.crt", PEM_A)
    assert load_system_anchors({}) == (A,)


def test_all_files_of_all_directories_are_used_in_addition(places: Path) -> None:
    write(places / "first.crt", PEM_A)
    write(places / "certs" / "b.0", PEM_B)
    write(places / "more" / "any name", PEM_C + PEM_A)
    write(places / "more" / "README", b"no certificate")
    (places / "more" / "folder").mkdir()
    os.mkfifo(places / "more" / "pipe")
    assert load_system_anchors({}) == (A, B, C)


def test_links_within_a_directory_are_skipped_and_links_to_elsewhere_are_followed(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(places / "certs" / "a.pem", PEM_A)
    (places / "certs" / "12345678.0").symlink_to("a.pem")
    (places / "certs" / "b.pem").symlink_to(write(places / "elsewhere" / "b.pem", PEM_B))
    (places / "certs" / "gone.pem").symlink_to(places / "gone")
    read: list[str] = []
    monkeypatch.setattr(anchors, "read_file", lambda path: read.append(Path(path).name) or Path(path).read_bytes())
    with pytest.raises(FileNotFoundError):  # of the usual bundles, which this stand-in does not translate
        load_system_anchors({})
    read.clear()
    write(places / "first.crt", b"")
    assert load_system_anchors({}) == (A, B)
    assert read == ["first.crt", "a.pem", "b.pem"]


@pytest.mark.parametrize("empty", [{}, {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}])
def test_environment_variables_replace_the_default_paths(places: Path, empty: dict[str, str]) -> None:
    write(places / "first.crt", PEM_A)
    write(places / "certs" / "b", PEM_B)
    own = str(write(places / "own.pem", PEM_C))
    one, other = (str(write(places / name / "x", PEM_C).parent) for name in ("one", "other"))
    assert load_system_anchors(empty) == (A, B)
    assert load_system_anchors({**empty, "SSL_CERT_FILE": own}) == (C, B)
    assert load_system_anchors({**empty, "SSL_CERT_DIR": f"{one}:/not/there::{other}"}) == (A, C)
    assert load_system_anchors({"SSL_CERT_FILE": own, "SSL_CERT_DIR": one}) == (C,)
    assert load_system_anchors({"SSL_CERT_FILE": "/not/there", "SSL_CERT_DIR": "/not/there"}) == ()


def test_an_unreadable_bundle_is_an_error_only_if_nothing_else_is_found(places: Path) -> None:
    odd = {"SSL_CERT_FILE": str(places)}  # a directory
    reason, message = refusal_of(load_system_anchors, odd)  # type: ignore[arg-type]
    assert reason is IdentityFault.FILE
    assert str(places) in message
    write(places / "certs" / "b", PEM_B)
    assert load_system_anchors(odd) == (B,)


def test_a_bundle_of_the_system_without_a_certificate_is_no_error(places: Path) -> None:
    write(places / "first.crt", b"")
    write(places / "second.crt", PEM_B)
    assert load_system_anchors({}) == ()  # the first that is there counts, as in Go


def test_the_anchors_of_this_machine_are_read_without_a_warning() -> None:
    assert load_system_anchors({}) or not Path("/etc/ssl/certs/ca-certificates.crt").exists()


def test_a_root_with_an_odd_serial_number_is_an_anchor_without_a_warning() -> None:
    """System bundles contain such certificates, and the library warns about them."""
    arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=zero -set_serial 0"
    assert len(parse_anchors(openssl(*arguments.split()))) == 1
