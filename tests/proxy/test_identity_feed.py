"""The credentials of one identity source reach all of its listeners at once, after generations were built in slices."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.recorded_log import RecordedLog
from tests.support.tls_ends import Identity, identity
from tests.support.tunnel_harness import HOME, OURS, ROOT, generation
from tunnel.config.model import IdentityConfig, NoIdentity
from tunnel.errors import IdentityError, IdentityFault
from tunnel.identity.credentials import PkiCredentials, SvidCredentials, X509Svid
from tunnel.lazy_dataclass import replace
from tunnel.listener.generation import Generation, GenerationBuilder
from tunnel.proxy import identity_feed
from tunnel.proxy.identity_feed import IdentityFeed
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import parse_spiffe_id

NOTHING = PkiCredentials((), None, ())
BUNDLES = BundleSet({HOME: TrustBundle(HOME, (ROOT.certificate,))})


def credentials_of(who: Identity) -> SvidCredentials:
    svid = X509Svid(parse_spiffe_id("spiffe://a.test/ours"), "", who.chain, who.leaf.key, who.chain[0].not_after)
    return SvidCredentials(svid, BUNDLES)


OLD = credentials_of(OURS)
NEW = credentials_of(identity("spiffe://a.test/ours", root=ROOT))


class Listener:
    """A listener that records its generations; `on_build` is called while one is built."""

    def __init__(self, name: str) -> None:
        self.name, self.generation_config, self.policy = name, name, None
        self.used: list[Generation] = []
        self.builds = 0
        self.on_build = lambda: None

    def build(self, builder: GenerationBuilder) -> Generation:
        self.builds += 1
        self.on_build()
        return replace(generation(builder.number), warnings=("a list has expired",))

    def use(self, one: Generation, *, withdrawn_in: float | None = None) -> None:
        self.used.append(one)

    def numbers(self) -> list[int]:
        return [one.number for one in self.used]


def feed_of(*listeners: Any, log: RecordedLog | None = None) -> IdentityFeed:
    config = IdentityConfig(NoIdentity())
    made = IdentityFeed(config, lambda *_: None, lambda *_: None, log or RecordedLog())  # type: ignore[arg-type,return-value]
    made.listeners = list(listeners)
    return made


def refuse() -> None:
    raise IdentityError(IdentityFault.BAD_CERTIFICATE, "cannot be presented")


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause before each generation."""
    monkeypatch.setattr(identity_feed, "_SLICE", 0.0)


@pytest.mark.usefixtures("short_slices")
def test_other_tasks_run_while_generations_are_built_and_nothing_is_in_use_before_all_are() -> None:
    listeners = [Listener(str(number)) for number in range(20)]
    feed, seen = feed_of(*listeners), []

    async def watch() -> None:
        while feed.is_building:
            seen.append((sum(one.builds for one in listeners), sum(len(one.used) for one in listeners)))
            await trio.lowlevel.checkpoint()

    async def use() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.use, 3, NOTHING)
            listeners[0].on_build = lambda: nursery.start_soon(watch)

    trio.run(use)
    assert len({built for built, _ in seen}) >= 3
    assert {used for _, used in seen} == {0}
    assert [one.numbers() for one in listeners] == [[3]] * 20
    assert (feed.number, feed.credentials) == (3, NOTHING)


@pytest.mark.usefixtures("short_slices")
def test_if_one_generation_cannot_be_built_no_listener_changes() -> None:
    listeners = [Listener(str(number)) for number in range(3)]
    feed = feed_of(*listeners)
    trio.run(feed.use, 1, NOTHING)
    listeners[2].on_build = refuse
    with pytest.raises(IdentityError):
        trio.run(feed.use, 2, PkiCredentials((), None, (), ("skipped",)))
    assert [one.numbers() for one in listeners] == [[1]] * 3
    assert (feed.number, feed.credentials, feed.is_building) == (1, NOTHING, False)


@pytest.mark.usefixtures("short_slices")
def test_a_listener_that_has_left_meanwhile_gets_no_generation() -> None:
    one, leaving, other = (Listener(name) for name in "abc")
    feed = feed_of(one, leaving, other)
    other.on_build = lambda: feed.leave(leaving)  # type: ignore[arg-type]
    trio.run(feed.use, 1, NOTHING)
    assert [each.numbers() for each in (one, leaving, other)] == [[1], [], [1]]


def test_listeners_with_equal_configurations_share_a_generation() -> None:
    listeners = [Listener(name) for name in "aba"]
    trio.run(feed_of(*listeners).use, 1, NOTHING)
    assert [one.builds for one in listeners] == [1, 1, 0]
    assert listeners[0].used[0] is listeners[2].used[0]


def test_a_warning_about_credentials_is_logged_once_and_not_for_each_listener() -> None:
    log, listeners = RecordedLog(), [Listener(name) for name in "abc"]
    feed = feed_of(*listeners, log=log)
    for number in (1, 2):
        trio.run(feed.use, number, NOTHING)
        feed.apply(listeners[0], listeners[0].used[-1])  # type: ignore[arg-type]  # by a reload
        assert log.kept == ["warning: a list has expired"] * number


def test_a_rotation_is_counted_when_the_certificate_is_another_one() -> None:
    feed = feed_of(Listener("a"))

    async def use() -> None:
        for number, credentials in enumerate((OLD, OLD, NEW, NEW, OLD), 1):
            await feed.use(number, credentials)

    trio.run(use)
    report = feed.report()
    assert (report.replaced, report.generation, len(report.rotations)) == (2, 5, 5)
    assert report.serial == f"{OLD.svid.chain[0].serial_number:x}"
