"""The wheel has everything that the package reads at run time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tunnel.status.page import load_page_files

ROOT = Path(__file__).parent.parent


def test_the_wheel_has_the_files_of_the_page(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("bin", "tunnel"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    argv = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "-w",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(argv, cwd=source, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {
            Path(name).name: archive.read(name) for name in archive.namelist() if name.startswith("tunnel/status/page_files/")
        }
    assert found == {name: file.body for name, file in load_page_files().items()}
