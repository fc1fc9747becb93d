"""The check of the access log finds what would prevent the start."""

from __future__ import annotations

from pathlib import Path

from tunnel.check.diagnosis import examine_access_log
from tunnel.check.finding import ok, problem


def test_a_file_that_can_be_opened_is_ok_and_one_that_cannot_is_a_problem(tmp_path: Path) -> None:
    path, lost = tmp_path / "access.log", tmp_path / "none" / "access.log"
    assert examine_access_log(str(path)) == ok("access-log", f"{path} can be written")
    assert examine_access_log(str(lost)) == problem(
        "access-log",
        f"access log {lost}: no such file or directory",
        "create the directory, correct its permissions, or change --access-log-target",
    )
