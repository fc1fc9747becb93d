"""Programs that tests need and that a machine may lack.

Knows Debian's packages; must not know what the programs are used for.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_PACKAGES = {
    "openssl": "openssl",
    "prlimit": "util-linux",
    "unshare": "util-linux",
    "ip": "iproute2",
    "systemd-analyze": "systemd",
    "systemctl": "systemd",
    "docker-compose": "docker-compose",
    "nsenter": "util-linux",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
    "redis-benchmark": "redis-tools",
    "psql": "postgresql-client",
    "pgbench": "postgresql",
    "initdb": "postgresql",
    "postgres": "postgresql",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "stunnel": "stunnel4",
    "curl": "curl",
    "tinyproxy": "tinyproxy-bin",
    "microsocks": "microsocks",
    "pebble": "pebble",
    "pebble-challtestsrv": "pebble",
    "zsh": "zsh",
    "fish": "fish",
    "groff": "groff-base",
    "lexgrog": "man-db",
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
}
# Debian keeps the programs of PostgreSQL's server out of the search path, by version.
_PLACES = [os.environ.get("PATH", os.defpath), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]


def program(name: str) -> str:
    """The path of a program; without it the test is skipped, but fails where everything has to be there."""
    found = shutil.which(name, path=os.pathsep.join(_PLACES))
    if found is None:
        text = f"no program {name}: install the Debian package {_PACKAGES[name]}"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return found
