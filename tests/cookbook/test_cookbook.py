"""Every command of every page of the cookbook, against the real service."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.cookbook_page import read_page
from tests.support.cookbook_runner import CookbookRunner
from tests.support.cookbook_services import nginx, sshd
from tests.support.databases import Database, mariadb, postgresql, redis
from tests.support.requirements import need, program

USER = pwd.getpwuid(os.geteuid()).pw_name
_COOK = "cook"


@pytest.fixture(scope="module")
def cellar() -> Iterator[Path]:
    """A directory for services that live as long as this module; not pytest's own, which PostgreSQL's user may not enter."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def kitchen(cellar: Path) -> Iterator[CookbookRunner]:
    with tempfile.TemporaryDirectory(dir=cellar) as directory, closing(CookbookRunner(Path(directory))) as kitchen:
        yield kitchen


@pytest.fixture(scope="module")
def sql(cellar: Path) -> Iterator[Database]:
    """PostgreSQL, set up as its page says; our own user is the one that runs the tunnel."""
    (cellar / "sql").mkdir()
    files = read_page("postgresql").files
    files["pg_ident.conf"] = files["pg_ident.conf"].replace(" tunnel ", f" {USER} ")
    # The owner's commands are given by a role of the test's own: root may not be the system's user postgres, nor may others.
    files["pg_hba.conf"] = f"local all {_COOK} trust\n{files['pg_hba.conf']}"
    with postgresql(cellar / "sql", files, port=5432, superuser=_COOK) as database:
        yield database


def owner_of(database: Database) -> dict[str, str]:
    """What makes psql PostgreSQL's superuser."""
    return {"PGHOST": str(Path(database.unix.removeprefix("unix:")).parent), "PGUSER": _COOK, "PGDATABASE": "postgres"}


def test_postgresql(kitchen: CookbookRunner, sql: Database) -> None:
    program("psql")
    page = read_page("postgresql").adapted({**kitchen.values(), "SERVICE": sql.unix, "SOCKETS": str(kitchen.directory)})
    kitchen.follow(page, owner=owner_of(sql))


def test_redis(kitchen: CookbookRunner) -> None:
    program("redis-cli")
    socket = kitchen.directory / "redis.sock"
    page = read_page("redis").adapted({**kitchen.values(), "SERVICE": f"unix:{socket}", "LOCAL": kitchen.port()})
    with redis(kitchen.directory, page.files):
        kitchen.follow(page)


def test_mysql(kitchen: CookbookRunner) -> None:
    program("mysql")
    program("mariadb")
    page = read_page("mysql")
    with mariadb(kitchen.directory, page.files) as database:
        kitchen.follow(page.adapted({**kitchen.values(), "SERVICE": database.unix, "LOCAL": kitchen.port()}))


def test_ssh(kitchen: CookbookRunner) -> None:
    place, address = kitchen.directory / "build", kitchen.port()
    place.mkdir()
    page = read_page("ssh").adapted({**kitchen.values(), "SERVICE": address, "PLACE": str(place)})
    for name in ("rsync", "git"):
        program(name)
    with sshd(kitchen.directory, page.files["sshd_config"], address) as usual:
        # ssh reads its user's own ~/.ssh/config, whatever $HOME says.
        config = kitchen.directory / "config"
        config.write_text(page.files["ssh_config"].replace("%h:8022", page.names["SERVER"]) + usual)
        kitchen.tool("ssh", [program("ssh"), "-F", str(config)])
        kitchen.tool("scp", [program("scp"), "-S", str(kitchen.tools / "ssh")])
        kitchen.follow(page)


def test_http(kitchen: CookbookRunner) -> None:
    program("curl")
    page = read_page("http").adapted({**kitchen.values(), "SERVICE": kitchen.port(), "LOCAL": kitchen.port("localhost")})
    with nginx(kitchen.directory, page.files["web.conf"], page.names["SERVICE"]):
        kitchen.follow(page)


def test_java(kitchen: CookbookRunner, sql: Database) -> None:
    program("java")
    program("javac")
    page = read_page("java")
    if not Path(page.names["JDBC"]).exists():
        need(f"no {page.names['JDBC']}: install the Debian package libpostgresql-jdbc-java")
    page = page.adapted({**kitchen.values(), "SERVICE": sql.unix, "LOCAL": kitchen.port()})
    kitchen.follow(page, owner=owner_of(sql))


def test_the_index(kitchen: CookbookRunner) -> None:
    page = read_page("README")
    kitchen.follow(page.adapted({**kitchen.values(), "SERVICE": kitchen.port(), **kitchen.agents}))
