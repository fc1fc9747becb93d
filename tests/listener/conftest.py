"""Fixtures of the listener tests."""

from __future__ import annotations

from tests.support.tunnel_harness import make_harnesses

harnesses = make_harnesses
