"""Warnings about directories in which another user could replace the files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnel.svid.exposure import find_exposure, list_exposures

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="directories of other users are wanted")
OTHER = 12345

CASES: list[tuple[str, int, int, int, str]] = [  # mode, user and group of a directory, the warning
    ("ours alone", 0o700, 0, 0, ""),
    ("for all to read", 0o755, 0, 0, ""),
    ("writable by our own group", 0o775, 0, 0, ""),
    ("of another user", 0o755, OTHER, 0, f"belongs to user {OTHER}"),
    ("of another user alone", 0o700, OTHER, OTHER, f"belongs to user {OTHER}"),
    ("writable by all", 0o777, 0, 0, "is writable by every user (mode 0777)"),
    ("writable by another group", 0o770, 0, OTHER, f"is writable by group {OTHER} (mode 0770)"),
    ("readable by another group", 0o750, 0, OTHER, ""),
]


@pytest.mark.parametrize(("mode", "user", "group", "why"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_directory_and_each_one_above_it_count(tmp_path: Path, mode: int, user: int, group: int, why: str) -> None:
    outer = tmp_path / "outer"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    for directory, place in ((inner, inner), (outer, inner)):
        os.chown(directory, user, group)
        directory.chmod(mode)
        assert find_exposure(str(place)) == (f"{directory} {why}" if why else "")
        os.chown(directory, 0, 0)
        directory.chmod(0o755)


def test_a_sticky_bit_is_enough_above_the_directory_and_not_in_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    inner = tmp_path / "inner"
    inner.mkdir()
    assert find_exposure(str(inner)) == ""
    assert "every user (mode 1777)" in find_exposure(str(tmp_path))
    os.chown(tmp_path, OTHER, 0)
    assert "belongs to user" in find_exposure(str(inner))  # its owner renames in spite of the bit


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("open")
    (warning,) = list_exposures(str(tmp_path / "link"), str(tmp_path / "open"), str(tmp_path / "open"))
    assert warning.startswith(f"{tmp_path}/open: another user can replace the files here: ")
    assert list_exposures(str(tmp_path / "nowhere")) == ()
