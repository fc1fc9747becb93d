"""The private directory: its mode, and the directories in which it is created."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tunnel.errors import ConfigError
from tunnel.net.private import private_directory

OTHER = 64321  # a user with no name


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_directory_is_private_and_removed_with_its_content(place: Path) -> None:
    with private_directory({}) as directory:
        assert (directory.parent, directory.stat().st_mode & 0o777) == (place.resolve(), 0o700)
        (directory / "more").mkdir()
        (directory / "more" / "file").touch()
    assert not list(place.iterdir())


def test_a_failed_removal_is_no_error(place: Path) -> None:
    with private_directory({}) as directory:
        directory.rmdir()
    assert not list(place.iterdir())


@pytest.mark.parametrize("name", ["", "deep"])
@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_directory_that_others_may_change_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: int
) -> None:
    """Otherwise another user could replace the directory, and the socket in it."""
    weak = place / "weak"
    (weak / name).mkdir(parents=True)
    if mode & 0o020:
        monkeypatch.setattr("tunnel.net.private._ROOT", OTHER)  # whose group may write
    monkeypatch.setattr(tempfile, "tempdir", str(weak / name))
    weak.chmod(mode)
    with pytest.raises(ConfigError, match=r"other users may change .*/weak"), private_directory({}):
        pass
    weak.chmod(0o1777)  # as /tmp is: nobody can take away what is another's
    with private_directory({}) as directory:
        assert directory.parent == (weak / name).resolve()


def test_our_own_runtime_directory_is_used(place: Path) -> None:
    runtime = place / "runtime"
    runtime.mkdir(mode=0o700)
    with private_directory({"XDG_RUNTIME_DIR": str(runtime)}) as directory:
        assert directory.parent == runtime.resolve()
    runtime.chmod(0o777)
    for path in (str(runtime), os.path.relpath(runtime), str(place / "absent"), ""):
        with private_directory({"XDG_RUNTIME_DIR": path}) as directory:
            assert directory.parent == place.resolve()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_another_user_s_directory_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `sudo -E`: its owner could replace our directory."""
    theirs = place / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, OTHER, OTHER)
    with private_directory({"XDG_RUNTIME_DIR": str(theirs)}) as directory:
        assert directory.parent == place.resolve()
    monkeypatch.setattr(tempfile, "tempdir", str(theirs))
    with pytest.raises(ConfigError, match="other users may change"), private_directory({}):
        pass
