"""When the garbage collector runs."""

from __future__ import annotations

import gc
from typing import Final

_DEFAULT: Final = (700, 10, 10)  # the thresholds of the interpreter


def freeze_startup_objects() -> None:
    """Exclude all present objects from garbage collection, and collect new ones with the default thresholds."""
    gc.freeze()
    gc.set_threshold(*_DEFAULT)
