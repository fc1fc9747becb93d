"""Every command of every page of the cookbook, against the real service."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.cookbook_page import Page, read_page
from tests.support.cookbook_runner import CookbookRunner
from tests.support.cookbook_services import NGINX, nginx, sshd
from tests.support.databases import Database, mariadb, postgresql, redis
from tests.support.proxy_header_receivers import running_receiver, version_of
from tests.support.requirements import need, program
from tunnel.lazy_dataclass import replace

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


def test_backend(kitchen: CookbookRunner) -> None:
    program("curl")
    page = read_page("backend")
    values = {**kitchen.values(), "SOCKETS": str(kitchen.directory), "SERVICE": f"unix:{kitchen.directory}/hello.sock"}
    kitchen.follow(page.adapted(values))


LATER = {"nginx": (1, 23, 2), "haproxy": (2, 9)}  # the first versions that can show a TLV of any type
UNKNOWN = {  # in an earlier one
    "nginx": 'unknown "proxy_protocol_tlv_0xe5" variable',
    "haproxy": "unknown fetch method 'fc_pp_tlv'",
}
REFUSALS = {"nginx": "no access", "haproxy": "...403 Forbidden..."}


def refusal_of(name: str, settings: str, path: Path) -> str:
    """What a receiver prints that refuses its settings."""
    path.write_text(settings)
    argv = {"nginx": ["-e", "stderr", "-t", "-c"], "haproxy": ["-c", "-f"]}[name]
    done = subprocess.run([program(name), *argv, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode, done.stderr
    return done.stderr


@pytest.mark.parametrize("name", LATER)
def test_backend_behind_a_receiver_of_a_later_version(kitchen: CookbookRunner, name: str) -> None:
    """The page's first request is admitted by the receiver's settings, and that of another identity is refused.

    As the page says, an earlier version refuses the settings.
    """
    directory = kitchen.directory
    service = directory / f"{name}.sock"
    values = {**kitchen.values(), "SOCKETS": str(directory), "SERVICE": f"unix:{service}"}
    page = read_page("backend").adapted(values)
    argv = {"nginx": [program("nginx"), "-e", "stderr", "-c"], "haproxy": [program("haproxy"), "-db", "-f"]}[name]
    text = next(text for file, text in page.files.items() if name in file)
    settings = NGINX.format(directory=directory, servers=text) if name == "nginx" else text
    if version_of(name, "-v") < LATER[name]:
        assert UNKNOWN[name] in refusal_of(name, settings, directory / f"{name}.conf")
        return
    blocks = [block for block in page.blocks if block.use in ("names", "server", "client", "admin", "output")]
    admitted = next(at for at, block in enumerate(blocks) if block.use == "output")
    refused = next(at for at, block in enumerate(blocks) if block.use == "admin" and "tunnel exec" in block.text)
    shown = (*blocks[: admitted + 1], blocks[refused], replace(blocks[refused + 1], text=REFUSALS[name]))
    with running_receiver(argv, settings, directory / f"{name}.conf", service):
        kitchen.follow(Page(shown, page.names))


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
