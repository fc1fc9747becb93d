"""Runs the scripts of `scripts/` with the program under test on their path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).with_name("scripts")
ROOT = Path(__file__).parents[2]
LISTENING = [sys.executable, str(SCRIPTS / "signal_listener.py")]
LIMIT = 60.0


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def miniature(*words: str) -> list[str]:
    """The command line of `minimal_exec.py`; the command's follows."""
    return [sys.executable, str(SCRIPTS / "minimal_exec.py"), *words, "--"]


def run(argv: list[str], environ: Mapping[str, str] | None = None, **how: Any) -> subprocess.CompletedProcess[bytes]:
    """Run something to its end."""
    return subprocess.run(argv, env=environ or environment(), capture_output=True, timeout=LIMIT, check=False, **how)


def run_source(source: str, *arguments: str, **how: Any) -> str:
    """What a short script says on standard output; it must end well."""
    done = run([sys.executable, "-c", source, *arguments], **how)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()
