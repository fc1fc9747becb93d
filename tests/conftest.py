"""What the tests of several packages need; its being here puts this directory on the path, for `forge` and `scenes`."""

from __future__ import annotations

from hypothesis import settings

# Speed of the machine is no property of the program, and a failure must be the same everywhere.
settings.register_profile("tunnel", deadline=None, derandomize=True)
settings.load_profile("tunnel")
