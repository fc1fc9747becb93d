"""A process of this program that listens on a Unix socket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OTHER = """
import sys
from tunnel.net.address import parse_address
from tunnel.net.listen import open_listener
listener = open_listener(parse_address(f"unix:{sys.argv[1]}"))
print(listener, flush=True)
sys.stdin.read()
listener.close()
"""


@contextmanager
def other_listener(path: Path) -> Iterator[str]:
    """Another process that listens there too, until the end; its address as it writes it."""
    argv = [sys.executable, "-c", _OTHER, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate(timeout=60)
