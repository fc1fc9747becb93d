"""Programs that tests need and that a machine may lack, with their Debian packages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

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
    "mariadb-install-db": "mariadb-server-core",
    "mariadbd": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
    "mysql": "mariadb-client-core",
    "ssh": "openssh-client",
    "scp": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "rsync": "rsync",
    "git": "git",
    "hitch": "hitch",
    "valgrind": "valgrind",
    "strace": "strace",
    "javac": "default-jdk-headless",
    "java": "default-jdk-headless",
    "go": "golang-go",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "stunnel": "stunnel4",
    "curl": "curl",
    "chromium": "chromium",
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
_PLACES = [
    os.environ.get("PATH", os.defpath),
    "/usr/sbin",
    *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
]


def need(text: str) -> NoReturn:
    """The test is skipped for what is not there, but fails where everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def program(name: str) -> str:
    """The path of a program; without it the test is skipped, but fails where everything has to be there."""
    found = shutil.which(name, path=os.pathsep.join(_PLACES))
    if found is None:
        need(f"no program {name}: install the Debian package {_PACKAGES[name]}")
    return found
