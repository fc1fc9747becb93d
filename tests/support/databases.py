"""Redis, PostgreSQL and MariaDB as temporary processes with their own directories."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.plain_backends import free_port
from tests.support.processes import LIMIT, Process, eventually, is_listening
from tests.support.requirements import program

_SUPERUSER = "postgres"  # the account that Debian's package makes; the server refuses to run as root
_NO_FILES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Database:
    """The addresses of a database as proxy targets; `tcp` is unusable if the settings disable the port."""

    tcp: str
    unix: str


@contextmanager
def redis(directory: Path, files: Mapping[str, str] = _NO_FILES) -> Iterator[Database]:
    """Redis without persistence; `files` may contain a redis.conf, which precedes our options."""
    port, path = free_port(), directory / "redis.sock"
    _write(directory, files)
    ports = {} if files else {"port": str(port), "bind": "127.0.0.1"}
    options = {**ports, "unixsocket": str(path), "save": "", "dir": str(directory)}
    argv = [program("redis-server"), *(str(directory / name) for name in files)]
    process = Process([*argv, *(word for name, value in options.items() for word in (f"--{name}", value))])
    try:
        process.wait_for("[Rr]eady to accept connections")  # on a port, or at a path
        eventually(lambda: is_listening(path), "Redis listens on its Unix socket")
        yield Database(f"127.0.0.1:{port}", f"unix:{path}")
    finally:
        process.stop()
        process.close()


@contextmanager
def postgresql(
    directory: Path, files: Mapping[str, str] = _NO_FILES, *, port: int = 0, superuser: str = _SUPERUSER
) -> Iterator[Database]:
    """A PostgreSQL cluster that trusts every client unless `files` changes that; `directory` is its own."""
    port, data = port or free_port(), directory / "data"
    data.mkdir()
    owner = _as_owner(directory, data)
    initialise = [program("initdb"), "--pgdata", str(data), "--auth=trust", f"--username={superuser}", "--no-sync"]
    subprocess.run([*owner, *initialise], check=True, stdout=subprocess.DEVNULL, timeout=LIMIT, cwd=directory)
    _write(data, files)
    settings = {"port": port, "unix_socket_directories": directory, "fsync": "off"}
    if "postgresql.conf" not in files:
        settings["listen_addresses"] = "127.0.0.1"
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process = Process([*owner, program("postgres"), "-D", str(data), *options], cwd=directory, is_merged=True)
    try:
        process.wait_for("database system is ready to accept connections")
        yield Database(f"127.0.0.1:{port}", f"unix:{directory / f'.s.PGSQL.{port}'}")
    finally:
        process.stop()
        process.close()


@contextmanager
def mariadb(directory: Path, files: Mapping[str, str]) -> Iterator[Database]:
    """MariaDB whose root is our user; `files` are option files, which precede our options."""
    data, path, user = directory / "data", directory / "mysqld.sock", pwd.getpwuid(os.geteuid()).pw_name
    _write(directory, files)
    root = ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}", "--skip-test-db"]
    initialise = [program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", f"--user={user}", *root]
    subprocess.run(initialise, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=LIMIT)
    (option_file,) = (directory / name for name in files)
    argv = [program("mariadbd"), f"--defaults-file={option_file}", f"--user={user}", f"--datadir={data}", f"--socket={path}"]
    process = Process(argv, is_merged=True)
    try:
        process.wait_for("ready for connections")
        yield Database("", f"unix:{path}")
    finally:
        process.stop()
        process.close()


def _write(directory: Path, files: Mapping[str, str]) -> None:
    """Settings in files of these names."""
    for name, text in files.items():
        (directory / name).write_text(text)


def _as_owner(*directories: Path) -> list[str]:
    """The prefix for a command that must not run as root; it gets the ownership of the directories."""
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
