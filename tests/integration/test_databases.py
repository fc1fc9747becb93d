"""Redis and PostgreSQL at work for a minute behind proxies whose identities, and once their authority, change meanwhile.

Everything runs at once, in one window that all tests of this module look back at.
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.databases import Database, pgbench, postgresql, psql, redis, redis_cli
from tests.support.plain_backends import connect
from tests.support.processes import LIMIT, Process, Proxy
from tests.support.requirements import program
from tests.support.workloads import Workloads
from tunnel.config.dev_model import Issuing

WINDOW = 60.0  # seconds
SVID_LIFE = timedelta(seconds=10)
ROTATION = 3.0
BEAT = 0.2  # seconds between two commands of a long session
BALANCES = """SELECT sum(abalance) FROM pgbench_accounts; SELECT sum(bbalance) FROM pgbench_branches;
SELECT sum(tbalance) FROM pgbench_tellers; SELECT sum(delta) FROM pgbench_history; SELECT count(*) FROM pgbench_history;
"""


@dataclass(frozen=True)
class Seen:
    """What each of the programs has seen in the window."""

    proxies: list[Proxy]
    has_new_authority: bool
    pgbench: list[str]  # what each run printed
    redis_benchmark: list[str]
    backends: list[str]  # "PID NUMBER" as a long session of psql was told, again and again
    clients: list[tuple[str, int]]  # the client's ID and a counter as a long session of redis-cli was told
    news: list[str]  # what a subscriber of Redis was sent
    published: int
    balances: list[int]
    counter: int


class Window:
    """The span in which everything runs."""

    def __init__(self) -> None:
        self.middle = math.inf
        self.is_over = threading.Event()
        self.is_closed = threading.Event()  # what comes before and after is done too: identities need no longer change
        self.has_new_authority = False

    def begin(self) -> None:
        """Everything is set up: it starts now."""
        self.middle = time.monotonic() + WINDOW / 2

    def beats(self) -> Iterator[int]:
        """Numbers from 1, one a beat."""
        number = 0
        while not self.is_over.wait(BEAT):
            yield (number := number + 1)


class Ways:
    """Pairs of proxies in front of databases, and the ports to reach them by."""

    def __init__(self, workloads: Workloads) -> None:
        self._world = workloads
        self.proxies: list[Proxy] = []

    def to(self, target: str) -> int:
        server = self._world.server(target)
        client = self._world.client(server.target)
        self.proxies += [server, client]
        return client.address[1]


def rotate(workloads: Workloads, window: Window) -> None:
    """New SVIDs again and again, and in the middle a new authority; the old one stays in the bundle until it expires."""
    change = [workloads.api.prepare_authorities, workloads.api.activate_authorities]
    while not window.is_closed.wait(ROTATION):
        if change and time.monotonic() > window.middle:
            change.pop(0)()
            window.has_new_authority = not change
        workloads.api.rotate_svids()


def run(argv: list[str], text: str | None = None) -> str:
    """The output of a program that must succeed."""
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=WINDOW + LIMIT, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    assert "error" not in done.stderr.lower()
    return done.stdout


def repeat_redis_benchmark(port: int, window: Window) -> list[str]:
    """Short runs, connections kept (-k 1) and made anew for each command (-k 0) in turn."""
    outputs = []
    for number in window.beats():
        size = ["-k", "0", "-n", "200"] if number % 2 else ["-k", "1", "-n", "5000"]
        tests = ["-t", "set,get,incr,lpush,lrange_100", "-c", "8", "-d", "1000", "-q"]
        outputs.append(run([program("redis-benchmark"), "-h", "127.0.0.1", "-p", str(port), *size, *tests]))
    return outputs


def keep_psql(session: Process, window: Window) -> list[str]:
    """Ask one session again and again who serves it."""
    for number in window.beats():
        session.say(f"SELECT pg_backend_pid() || ' ' || {number};")
        session.wait_for(f" {number}$")
    return session.lines


def keep_redis(port: int, window: Window) -> list[tuple[str, int]]:
    """Ask over one connection again and again who we are, count, and publish the count."""
    seen = []
    with connect(("127.0.0.1", port)) as sock, sock.makefile("rwb") as stream:

        def ask(command: str) -> str:
            stream.write(f"{command}\r\n".encode())
            stream.flush()
            return stream.readline().decode().strip()

        for number in window.beats():
            seen.append((ask("CLIENT ID"), int(ask("INCR counter").removeprefix(":"))))
            assert ask(f"PUBLISH news {number}") == ":1"
    return seen


def work(workloads: Workloads, sql: Database, cache: Database) -> Seen:
    """All programs at once, while identities change from the first proxy's start to the last look at the data."""
    window = Window()
    with ThreadPoolExecutor() as threads:
        rotation = threads.submit(rotate, workloads, window)
        try:
            return work_meanwhile(workloads, sql, cache, window, threads)
        finally:
            window.is_over.set()
            window.is_closed.set()
            rotation.result()


def work_meanwhile(workloads: Workloads, sql: Database, cache: Database, window: Window, threads: ThreadPoolExecutor) -> Seen:
    ways = Ways(workloads)
    sql_port, sql_unix, cache_port, cache_unix = map(ways.to, (sql.tcp, sql.unix, cache.tcp, cache.unix))
    run(pgbench(sql_port, "--initialize", "--quiet"))
    session = workloads.watch(Process(psql(sql_unix)))
    subscriber = workloads.watch(Process(redis_cli(cache_unix, "SUBSCRIBE", "news")))
    subscriber.wait_for("^1$")
    window.begin()
    load = ["--no-vacuum", f"--time={WINDOW:g}", "--client=2"]
    benches = [
        threads.submit(run, pgbench(sql_port, *load, "--rate=100")),
        threads.submit(run, pgbench(sql_unix, *load, "--rate=10", "--connect")),
    ]
    redis_benches = threads.submit(repeat_redis_benchmark, cache_port, window)
    backends = threads.submit(keep_psql, session, window)
    clients = threads.submit(keep_redis, cache_unix, window)
    outputs = [bench.result() for bench in benches]
    window.is_over.set()
    published = len(clients.result())
    subscriber.wait_for(f"^{published}$", since=3)
    seen = Seen(
        proxies=ways.proxies,
        has_new_authority=window.has_new_authority,
        pgbench=outputs,
        redis_benchmark=redis_benches.result(),
        backends=backends.result(),
        clients=clients.result(),
        news=subscriber.lines[5::3],
        published=published,
        balances=[int(line) for line in run(psql(sql_port), BALANCES).split()],
        counter=int(run(redis_cli(cache_port, "GET", "counter"))),
    )
    session.hush()
    subscriber.stop()
    return seen


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    # Not pytest's own directory, which the user of PostgreSQL may not enter.
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o755)
        for name in ("sql", "cache", "world"):
            (directory / name).mkdir()
        sql = stack.enter_context(postgresql(directory / "sql"))
        cache = stack.enter_context(redis(directory / "cache"))
        workloads = stack.enter_context(closing(Workloads(directory / "world", issuing=Issuing(ttl=SVID_LIFE))))
        yield work(workloads, sql, cache)


def test_the_identity_and_its_authority_have_changed_all_the_time(seen: Seen) -> None:
    assert seen.has_new_authority
    for proxy in seen.proxies:
        assert len(proxy.matches("identity updated: .* generation=")) > WINDOW / ROTATION / 2


def test_no_transaction_of_postgresql_fails(seen: Seen) -> None:
    for output in seen.pgbench:
        assert re.search(r"number of failed transactions: 0 \(", output), output


def test_the_books_of_postgresql_balance(seen: Seen) -> None:
    *sums, count = seen.balances
    assert len(set(sums)) == 1
    assert count == sum(int(re.findall(r"transactions actually processed: (\d+)", output)[0]) for output in seen.pgbench)


def test_no_command_of_redis_fails(seen: Seen) -> None:
    assert len(seen.redis_benchmark) > 2
    assert not [output for output in seen.redis_benchmark if "rror" in output]


def test_a_long_session_of_postgresql_keeps_its_backend(seen: Seen) -> None:
    pids, numbers = zip(*(line.split() for line in seen.backends), strict=True)
    assert len(set(pids)) == 1
    assert list(map(int, numbers)) == list(range(1, len(numbers) + 1))


def test_a_long_session_of_redis_keeps_its_client_id_and_counts_right(seen: Seen) -> None:
    ids, numbers = zip(*seen.clients, strict=True)
    assert len(set(ids)) == 1
    assert list(numbers) == list(range(1, len(numbers) + 1))
    assert seen.counter == numbers[-1]


def test_a_subscriber_of_redis_misses_nothing(seen: Seen) -> None:
    assert list(map(int, seen.news)) == list(range(1, seen.published + 1))


def test_the_proxies_have_refused_and_lost_nothing(seen: Seen) -> None:
    for proxy in seen.proxies:
        assert not proxy.matches("error")
        assert proxy.stop() == 0
        assert not re.search("(refused|dial_failed|no_identity|truncated|crashed)=", proxy.lines[-1])
