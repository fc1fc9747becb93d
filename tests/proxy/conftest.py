"""Fixtures of the proxy tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cert_factory import key_of, make_certificate
from tests.support.credential_files import ROOT, Files
from tests.support.tunnel_harness import make_harnesses

harnesses = make_harnesses


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.write(make_certificate(issuer=ROOT, subject="one", key=key_of("p256", 30)))
    return made
