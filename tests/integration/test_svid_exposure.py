"""Keys and tokens that root writes where another user could replace them: written, with a warning."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.command_runner import environment, run_tool
from tests.support.workloads import Workloads

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="directories of other users are wanted")


@pytest.mark.parametrize("is_foreign", [True, False], ids=["of another user", "writable by all"])
def test_a_directory_of_another_user_is_warned_of(workloads: Workloads, tmp_path: Path, is_foreign: bool) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    if is_foreign:
        os.chown(place, 12345, 12345)
    else:
        place.chmod(0o777)
    for words in (
        ("svid", "fetch", f"--out={place}"),
        ("svid", "fetch", f"--out={place / 'below'}"),
        ("svid", "fetch", f"--out={tmp_path / 'own'}", f"--combined={place / 'both.pem'}"),
        ("svid", "jwt", "--audience=x", f"--out={place / 'token'}"),
    ):
        done = run_tool(environment(workloads), *words)
        assert done.code == 0, done.err
        assert f"warning: {place}" in done.err, words
        assert "another user can replace the files here" in done.err


def test_a_directory_of_our_own_is_not_warned_of(workloads: Workloads, tmp_path: Path) -> None:
    done = run_tool(environment(workloads), "svid", "fetch", f"--out={tmp_path / 'own'}")
    assert done.code == 0
    assert "warning" not in done.err
