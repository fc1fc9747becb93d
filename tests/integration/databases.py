"""Redis and PostgreSQL as throw-away processes in a directory of their own.

Knows how each is started, on TCP and on a Unix socket, and how its tools are called; must not know what is tested.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backends import free_port
from processes import LIMIT, Process, eventually
from requirements import program

_SUPERUSER = "postgres"  # the account that Debian's package makes; the server refuses to run as root


@dataclass(frozen=True)
class Database:
    """Where one listens, as targets of a proxy."""

    tcp: str
    unix: str


@contextmanager
def redis(directory: Path) -> Iterator[Database]:
    """A Redis that keeps nothing on disk."""
    port, path = free_port(), directory / "redis.sock"
    options = {"port": str(port), "bind": "127.0.0.1", "unixsocket": str(path), "save": "", "dir": str(directory)}
    argv = [program("redis-server"), *(word for name, value in options.items() for word in (f"--{name}", value))]
    process = Process(argv)
    try:
        process.wait_for("Ready to accept connections")
        eventually(path.exists, "Redis listens on its Unix socket")
        yield Database(f"127.0.0.1:{port}", f"unix:{path}")
    finally:
        process.stop()
        process.close()


@contextmanager
def postgresql(directory: Path) -> Iterator[Database]:
    """A PostgreSQL cluster that trusts everyone who reaches it; `directory` is its own."""
    port, data = free_port(), directory / "data"
    data.mkdir()
    as_owner = _as_owner(directory, data)
    initialise = [program("initdb"), "--pgdata", str(data), "--auth=trust", f"--username={_SUPERUSER}", "--no-sync"]
    subprocess.run([*as_owner, *initialise], check=True, stdout=subprocess.DEVNULL, timeout=LIMIT, cwd=directory)
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": directory, "fsync": "off"}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process = Process([*as_owner, program("postgres"), "-D", str(data), *options], cwd=directory, is_merged=True)
    try:
        process.wait_for("database system is ready to accept connections")
        yield Database(f"127.0.0.1:{port}", f"unix:{directory / f'.s.PGSQL.{port}'}")
    finally:
        process.stop()
        process.close()


def _as_owner(*directories: Path) -> list[str]:
    """What to put before a command that must not be root's; the directories become its own."""
    if os.geteuid() != 0:
        return []
    owner = pwd.getpwnam(_SUPERUSER)
    for directory in directories:
        shutil.chown(directory, owner.pw_uid, owner.pw_gid)
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]


def pgbench(port: int, *flags: str) -> list[str]:
    """A command line of pgbench against a local port."""
    return [program("pgbench"), "--host=127.0.0.1", f"--port={port}", f"--username={_SUPERUSER}", *flags, _SUPERUSER]


def psql(port: int) -> list[str]:
    """A session that reads statements from its standard input and answers with bare values."""
    flags = "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"
    conninfo = f"host=127.0.0.1 port={port} user={_SUPERUSER} dbname={_SUPERUSER} sslmode=disable"
    return [program("psql"), *flags, conninfo]


def redis_cli(port: int, *command: str) -> list[str]:
    """A command line of redis-cli; without a command it reads commands from its standard input."""
    return [program("redis-cli"), "-h", "127.0.0.1", "-p", str(port), *command]
