"""Names and addresses: what needs no resolver is answered at once, and the rest fails in our own words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXHAUSTED = """
import resource, sys
from tunnel.errors import TargetError
from tunnel.net.address import TcpAddress
from tunnel.net.sockets import resolve

resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    resolve(TcpAddress("db.invalid", "80"))
except TargetError as error:
    print(error.reason.value)
"""


def test_a_name_is_asked_for_with_no_descriptor_left_and_fails_in_our_words() -> None:
    """Neither the resolver nor the interpreter's codec of host names, which is loaded when first needed, can open a file."""
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "name-not-resolved\n"
