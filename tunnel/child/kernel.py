"""prctl(2), which the standard library lacks.

Knows the call; must not know who needs it.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

SET_PDEATHSIG: Final = 1
SET_DUMPABLE: Final = 4
SET_CHILD_SUBREAPER: Final = 36

_libc = ctypes.CDLL(None, use_errno=True)  # looked up now: nothing is to be loaded between a fork and an exec


def prctl(option: int, value: int) -> None:
    """Set one property of this process, or of this thread; raises OSError."""
    if _libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
