"""Warnings and errors of libraries and of the interpreter go to the log, not to standard error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import ctypes, gc, logging, sys, threading, warnings
from tunnel.log_capture import LogCapture

log_capture = LogCapture()
log_capture.install()
{cause}
log_capture.drain(print)
log_capture.drain(print)
"""

CAUSES = [
    (
        "class Loser:\n    def __del__(self): raise ValueError('[gone]')\nLoser()",
        "internal error: ignored in function: Traceback",
        "ValueError: \\x5bgone\\x5d",
    ),
    (
        "import cffi\n@cffi.FFI().callback('void()')\ndef call(): raise ValueError('lost')\ncall()",
        "internal error: ",
        "ValueError: lost",
    ),
    (
        "def work(): raise ValueError('over')\nt = threading.Thread(target=work, name='helper')\nt.start(); t.join()",
        "internal error: exception in thread helper: Traceback",
        "ValueError: over",
    ),
    ("warnings.simplefilter('always')\nwarnings.warn('odd\\x1b')", "warning: UserWarning: odd\\x1b (", ""),
    ("logging.getLogger('lib.part').warning('took %d s', 5)", "warning from lib.part: took 5 s", ""),
    ("logging.getLogger('lib').error('took %d s', 'x')", "error from lib: took %d s", ""),
    (
        "try: 1 / 0\nexcept ZeroDivisionError: logging.getLogger('lib').exception('sum')",
        "error from lib: sum Traceback",
        "ZeroDivisionError",
    ),
]


def run(cause: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(cause=cause)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@pytest.mark.parametrize(("cause", "begin", "words"), CAUSES, ids=[begin for _, begin, _ in CAUSES])
def test_a_report_is_one_log_line_and_nothing_on_standard_error(cause: str, begin: str, words: str) -> None:
    done = run(cause)
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith(begin)
    assert words in line
    assert line.isprintable()


def test_an_enabled_warning_goes_to_the_log_too() -> None:
    done = run("import socket\nsocket.socket()\ngc.collect()", PYTHONWARNINGS="default")
    assert done.stderr == ""
    assert done.stdout.startswith("warning: ResourceWarning: unclosed")


@pytest.mark.parametrize(
    "cause",
    [
        "def work(): raise SystemExit\nt = threading.Thread(target=work)\nt.start(); t.join()",
        "logging.getLogger('lib').info('chat')",
        "warnings.simplefilter('ignore')\nwarnings.warn('odd')",
    ],
)
def test_other_events_are_not_logged(cause: str) -> None:
    done = run(cause)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_flood_of_reports_costs_bounded_memory() -> None:
    done = run("for number in range(1000): logging.warning('%d', number)")
    assert done.stderr == ""
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [str(number) for number in range(900, 1000)]
