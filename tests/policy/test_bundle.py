"""Policy files and bundles are loaded, or refused with a one-line error."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tunnel.errors import PolicyError, PolicyFault
from tunnel.policy import bundle_files
from tunnel.policy.bundle import load_policy, parse_bundle
from tunnel.policy.bundle_files import read_archive

V0 = b"package policy\nnames[x] { x := input.n }\nallow { names.a }\n"
V1 = b"package policy\nnames contains x if x := input.n\nallow if names.a\n"


def archive(
    files: dict[str, bytes], *, tar_format: int = tarfile.PAX_FORMAT, extra: tuple[tarfile.TarInfo, ...] = (), **pax: str
) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", format=tar_format) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.pax_headers = dict(pax)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
    return made.getvalue()


def named(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def source_of(files: dict[str, Any]) -> Any:
    return parse_bundle(
        {name: content if isinstance(content, bytes) else json.dumps(content).encode() for name, content in files.items()}
    )


def test_a_single_file_is_rego_v0(tmp_path: Path) -> None:
    path = tmp_path / "policy.rego"
    path.write_bytes(V0)
    (module,) = load_policy(str(path)).modules
    assert (module.name, module.version) == ("policy.rego", 0)
    assert "names contains x {" in module.text


def test_a_single_file_may_ask_for_v1(tmp_path: Path) -> None:
    path = tmp_path / "policy.rego"
    path.write_bytes(b"package policy\nimport rego.v1\nallow if true\n")
    assert load_policy(str(path)).modules[0].version == 1


@pytest.mark.parametrize("root", ["", "/", "./", "//"])
@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_names_in_an_archive_may_be_absolute_or_relative(tmp_path: Path, root: str, tar_format: int) -> None:
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(archive({f"{root}data.json": b'{"a": 1}', f"{root}b/policy.rego": V1}, tar_format=tar_format))
    source = load_policy(str(path))
    assert [(module.name, module.version) for module in source.modules] == [("b/policy.rego", 1)]
    assert json.loads(source.data) == {"a": 1}


def test_an_archive_may_carry_headers_of_pax() -> None:
    long = "a/" * 80 + "policy.rego"
    packed = archive({long: V1}, mtime="1700000000.123456789", comment="hello")
    assert list(read_archive(packed)) == [long]


def test_an_archive_may_hold_directories_and_an_entry_for_its_root() -> None:
    extra = (named("./", tarfile.DIRTYPE), named("/", tarfile.DIRTYPE), named("b", tarfile.DIRTYPE))
    assert list(read_archive(archive({"./b/policy.rego": V1}, extra=extra))) == ["b/policy.rego"]


def test_links_and_devices_of_an_archive_are_left_out() -> None:
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    extra = tuple(named(f"{number}.rego", kind, "/etc/passwd") for number, kind in enumerate(kinds))
    assert list(read_archive(archive({"policy.rego": V1}, extra=extra))) == ["policy.rego"]


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (b"", "not a tar.gz bundle"),
        (b"not gzip", "not a tar.gz bundle"),
        (gzip.compress(b"not tar" * 200), "not a tar.gz bundle"),
        (archive({"policy.rego": V1})[:-20], "not a tar.gz bundle"),
        (archive({"../policy.rego": V1}), "path outside the bundle"),
        (archive({"a/../../policy.rego": V1}), "path outside the bundle"),
        (archive({"policy.rego": V1, "/policy.rego": V1}), "policy.rego: duplicate file"),
        (gzip.compress(bytes(bundle_files.MAX_BYTES + 1)), "more than 16 MiB when unpacked"),
        (archive({f"{number}": b"" for number in range(bundle_files.MAX_FILES + 1)}), "more than 10000 files"),
    ],
    ids=[
        *("nothing", "no gzip", "no tar", "cut off", "outside", "outside through a folder", "twice"),
        *("too large", "too many files"),
    ],
)
def test_an_invalid_or_too_large_archive_is_refused(tmp_path: Path, packed: bytes, words: str) -> None:
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(packed)
    with pytest.raises(PolicyError, match=words) as caught:
        load_policy(str(path))
    assert "\n" not in str(caught.value)


def test_noise_in_an_archive_raises_nothing_else() -> None:
    plain = gzip.decompress(archive({"policy.rego": V1, "a" * 120: b"x"}, comment="hello"))
    for at in range(0, 4096, 7):
        for sign in (0x00, 0x39, 0xFF):
            try:
                read_archive(gzip.compress(plain[:at] + bytes([sign]) + plain[at + 1 :], 1))
            except PolicyError:
                continue


def test_a_directory_is_a_bundle_and_follows_the_links_of_kubernetes(tmp_path: Path) -> None:
    hidden = tmp_path / "..2026_11_22"
    hidden.mkdir()
    (hidden / "policy.rego").write_bytes(V1)
    (tmp_path / "policy.rego").symlink_to(hidden / "policy.rego")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.json").write_text('{"a": 1}')
    (tmp_path / ".manifest").write_text('{"rego_version": 1}')
    source = load_policy(str(tmp_path))
    assert [module.name for module in source.modules] == ["policy.rego"]
    assert json.loads(source.data) == {"sub": {"a": 1}}


def test_data_is_merged_under_its_path() -> None:
    files = {
        "policy.rego": V1,
        "data.json": {"a": {"x": 1}},
        "a/data.json": {"y": 2},
        "a/b/data.json": [3],
        "c.json": {"no": 1},
    }
    assert json.loads(source_of(files).data) == {"a": {"x": 1, "y": 2, "b": [3]}}


@pytest.mark.parametrize(
    ("manifest", "versions"),
    [
        ({}, [1, 1]),
        ({"rego_version": 1, "roots": [""]}, [1, 1]),
        ({"rego_version": 0}, [0, 0]),
        ({"rego_version": 0, "file_rego_versions": {"/b/*.rego": 1}}, [0, 1]),
        ({"file_rego_versions": {"**/a.rego": 0, "a.rego": 0}}, [0, 1]),
        ({"revision": "7", "roots": None, "metadata": {"x": 1}}, [1, 1]),
    ],
)
def test_the_manifest_sets_the_rego_version(manifest: dict[str, Any], versions: list[int]) -> None:
    files = {"a.rego": b"package a\nallow = true\n", "b/b.rego": b"package b\nallow = true\n", ".manifest": manifest}
    assert [module.version for module in source_of(files).modules] == versions


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"data.json": {}}, "has no .rego file"),
        ({"a.rego": V0}, r"a.rego:2: names\[\.\.\.\] is a set only in Rego v0, but this module is v1; write names contains"),
        ({"a.rego": b"package \xff"}, "a.rego: not UTF-8"),
        ({"a.rego": b"package a\0\nallow = true"}, "NUL character"),
        ({"a.rego": V1, "data.json": [1]}, "expected an object at the root"),
        ({"a.rego": V1, "data.json": b"{"}, "data.json: not JSON"),
        ({"a.rego": V1, "data.json": b'{"a": NaN}'}, "NaN is not a JSON number"),
        ({"a.rego": V1, "data.json": b'{"a": 1e999}'}, "data.json: "),
        ({"a.rego": V1, "data.json": b'{"a":' + b"[" * 100_000}, "not JSON"),
        ({"a.rego": V1, "data.json": {"a": 1}, "a/data.json": {"b": 1}}, "conflicts with another"),
        ({"a.rego": V1, "x/data.yaml": b"a: 1"}, "x/data.yaml: unsupported"),
        ({"a.rego": V1, ".signatures.json": {}}, "signatures cannot be verified"),
        ({"a.rego": V1, "patch.json": {}}, "delta bundle"),
        ({"a.rego": V1, ".manifest": b"{"}, ".manifest: not JSON"),
        ({"a.rego": V1, ".manifest": []}, "expected an object"),
        ({"a.rego": V1, ".manifest": {"rego_version": 2}}, "invalid Rego version 2; expected 0 or 1"),
        ({"a.rego": V1, ".manifest": {"rego_version": True}}, "Rego version true"),
        ({"a.rego": V1, ".manifest": {"roots": "a"}}, "roots is not a list of strings"),
        ({"a.rego": V1, ".manifest": {"roots": ["other"]}}, "package policy is not under a root"),
        ({"a.rego": V1, ".manifest": {"roots": ["policy"]}, "data.json": {"x": 1}}, "x is not under a root"),
        ({"a.rego": V1, ".manifest": {"file_rego_versions": [1]}}, "not an object"),
    ],
)
def test_an_error_in_a_bundle_is_one_line(files: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        source_of(files)
    assert caught.value.reason is PolicyFault.UNREADABLE
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["absent.rego", "absent"])
def test_a_policy_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(PolicyError, match=f"{name}: no such file or directory"):
        load_policy(str(tmp_path / name))
