"""A change of the configuration is prepared again if an identity source publishes in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from tunnel.config.model import IdentityConfig, KeyFiles
from tunnel.proxy.reconfiguration import Reconfiguration

FIRST, SECOND = (IdentityConfig(KeyFiles(name, name)) for name in ("first", "second"))


class Feed:
    """A feed whose files have not changed; `meanwhile` is called while they are read."""

    def __init__(self) -> None:
        self.number, self.credentials, self.source = 1, None, self
        self.meanwhile = lambda: None
        self.builds = 0  # credentials that are being put into use

    @property
    def is_building(self) -> bool:
        return self.builds > 0

    async def wait_built(self) -> None:
        await trio.lowlevel.checkpoint()
        self.builds -= 1
        self.publish()

    async def read(self) -> None:
        await trio.lowlevel.checkpoint()
        self.meanwhile()

    def publish(self) -> None:
        self.number += 1


def outdated(feeds: dict[IdentityConfig, Feed], *, after: Any = None) -> bool:
    listeners = tuple(SimpleNamespace(identity=identity, listen=None, name=identity.source.cert) for identity in feeds)
    proxy: Any = SimpleNamespace(feeds=feeds, listeners={})
    change = Reconfiguration(proxy, SimpleNamespace(listeners=listeners))  # type: ignore[arg-type]

    async def prepare() -> None:
        await change._read_identities()
        await change.wait_for_feeds()

    trio.run(prepare)
    if after is not None:
        after()
    return change.is_outdated()


@pytest.mark.parametrize("publisher", [FIRST, SECOND])
def test_a_source_that_publishes_after_its_files_were_read_outdates_the_change(publisher: IdentityConfig) -> None:
    feeds = {FIRST: Feed(), SECOND: Feed()}
    assert not outdated(feeds)
    assert outdated(feeds, after=feeds[publisher].publish)


def test_a_source_that_publishes_while_the_next_one_is_read_outdates_the_change() -> None:
    feeds = {FIRST: Feed(), SECOND: Feed()}
    feeds[SECOND].meanwhile = feeds[FIRST].publish
    assert outdated(feeds)


def test_credentials_that_are_put_into_use_meanwhile_are_waited_for() -> None:
    feeds = {FIRST: Feed(), SECOND: Feed()}
    feeds[SECOND].builds = 2
    assert outdated(feeds)
    assert not feeds[SECOND].is_building


def test_a_source_that_publishes_while_it_is_read_itself_does_not() -> None:
    feeds = {FIRST: Feed(), SECOND: Feed()}
    feeds[SECOND].meanwhile = feeds[SECOND].publish
    assert not outdated(feeds)
