"""How many cores a process can use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnel.workers.cores import count_workers, usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def cgroups(tmp_path: Path, group: str = "/", **quotas: str) -> tuple[Path, Path]:
    """A hierarchy of version 2 with `cpu.max` of some groups; `_` stands for a slash."""
    own = tmp_path / "own"
    own.write_text(f"0::{group}\n")
    root = tmp_path / "cgroup"
    for name, text in quotas.items():
        place = root / name.replace("_", "/").strip("/")
        place.mkdir(parents=True, exist_ok=True)
        (place / "cpu.max").write_text(text)
    return root, own


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "none") == 8


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("300000 100000", 3),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 8),
        ("1 0", 8),
        ("", 8),
    ],
)
def test_a_quota_limits_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    assert usable_cores(*cgroups(tmp_path, "/pod", pod=quota)) == cores


def test_the_smallest_quota_of_all_containing_groups_counts(tmp_path: Path) -> None:
    assert usable_cores(*cgroups(tmp_path, "/a/b", a="200000 100000", a_b="400000 100000")) == 2


def test_version_1_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path, tmp_path / "none") == 2
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cores(tmp_path, tmp_path / "none") == 8


def test_a_number_is_used_as_it_is_and_auto_is_the_number_of_cores() -> None:
    assert count_workers(3) == 3
    assert count_workers(0) == usable_cores()
