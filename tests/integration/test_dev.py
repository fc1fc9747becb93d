"""`tunnel dev` as an operator meets it: what it prints, where it listens, how it ends."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
from pathlib import Path

import pytest

from tests.support.dev_workload_api import end, read_sockets, tunnel_dev


def test_plain_dev_serves_in_the_runtime_directory_and_cleans_up(tmp_path: Path) -> None:
    with tunnel_dev(environ={"XDG_RUNTIME_DIR": str(tmp_path)}) as process:
        assert read_sockets(process) == [f"unix://{tmp_path}/tunnel-dev.sock"]
        assert stat.S_IMODE(os.stat(tmp_path / "tunnel-dev.sock").st_mode) == 0o600
        assert end(process) == 0
        assert not list(tmp_path.iterdir())


def test_without_a_runtime_directory_it_makes_a_private_one_and_removes_it() -> None:
    with tempfile.TemporaryDirectory() as place:  # its path is short: the socket's must fit
        with tunnel_dev(environ={"XDG_RUNTIME_DIR": "", "TMPDIR": place}) as process:
            (address,) = read_sockets(process)
            directory = Path(address.removeprefix("unix://")).parent
            assert directory.parent == Path(place)
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            assert end(process, signal.SIGINT) == 0
        assert not list(Path(place).iterdir())


def test_it_says_loudly_what_it_is_for_and_prints_every_socket_in_lines_a_shell_can_read(tmp_path: Path) -> None:
    here, there = (f"unix://{tmp_path}/{name}.sock" for name in ("here", "there"))
    ids = [f"--id={here}=spiffe://a.test/x,hint=h", f"--id={there}=spiffe://b.test/y"]
    with tunnel_dev(*ids, f"--socket={tmp_path.as_uri().replace('file', 'unix')}/none.sock") as process:
        assert process.stdout is not None
        note = process.stdout.readline()
        assert "FOR DEVELOPMENT AND TESTS ONLY" in note
        assert note.startswith("#")
        assert read_sockets(process, 3) == [f"unix://{tmp_path}/none.sock", here, there]
        assert end(process) == 0


@pytest.mark.parametrize("word", ["renewed", "prepared", "activated", "dropped"])
def test_verbose_tells_each_rotation(word: str, tmp_path: Path) -> None:
    times = ["--ttl=10s", "--rotate=200ms", "--ca-rotate=200ms"]
    with tunnel_dev(f"--socket=unix://{tmp_path}/api.sock", *times, "--verbose") as process:
        assert process.stdout is not None
        assert any(line.startswith(f"# {word}") for line in iter(process.stdout.readline, ""))
        assert end(process) == 0
